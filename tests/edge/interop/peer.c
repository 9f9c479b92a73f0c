/* A Modbus unit and a Modbus master of libmodbus, for tests/edge/test_interop.py: another hand's reading of the protocol.
 *
 *   peer serve-tcp PORT | serve-rtu DEVICE BAUD     answers as unit 17 until its standard input ends; says "ready"
 *   peer read PORT UNIT TABLE ADDRESS COUNT         prints what a server of ours answers, or "error: …" and status 1
 */
#include <errno.h>
#include <modbus.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNIT = 17, SIZE = 200 };

static modbus_mapping_t *values(void)
{
    modbus_mapping_t *map = modbus_mapping_new(SIZE, SIZE, SIZE, SIZE);
    uint16_t *r = map->tab_registers;
    for (int i = 0; i < SIZE; i++) {
        map->tab_bits[i] = i % 3 == 0;
        map->tab_input_bits[i] = i % 5 == 0;
        map->tab_input_registers[i] = 1000 + i;
    }
    r[0] = 65535;
    r[1] = (uint16_t)-12345;
    int32_t negative = -123456789;
    uint32_t large = 0xFEDCBA98;
    int64_t wide = -1234567890123LL;
    MODBUS_SET_INT32_TO_INT16(r, 2, negative);
    MODBUS_SET_INT32_TO_INT16(r, 4, large);
    MODBUS_SET_INT64_TO_INT16(r, 6, wide);
    /* 123456.0f is 47 F1 20 00. By hand: what modbus_set_float_abcd and its kin put on the wire depends on the version
     * (3.1.6 swaps the bytes of each register on little-endian machines). */
    const uint16_t floats[] = {0x47F1, 0x2000, 0x2000, 0x47F1, 0xF147, 0x0020, 0x0020, 0xF147};
    memcpy(r + 10, floats, sizeof floats);
    return map;
}

static int over(void)
{
    struct pollfd in = {.fd = 0, .events = POLLIN};
    return poll(&in, 1, 0) > 0;
}

static int serve(modbus_t *ctx, int listening)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_mapping_t *map = values();
    modbus_set_slave(ctx, UNIT);
    modbus_set_indication_timeout(ctx, 0, 200000);
    if (listening < 0 && modbus_connect(ctx) != 0) return 1;
    puts("ready");
    fflush(stdout);
    while (!over()) {
        struct pollfd waits = {.fd = listening, .events = POLLIN};
        if (listening >= 0 && poll(&waits, 1, 200) <= 0) continue;
        if (listening >= 0 && modbus_tcp_accept(ctx, &listening) < 0) return 1;
        while (!over()) {
            int n = modbus_receive(ctx, query);
            if (n > 0) modbus_reply(ctx, query, n, map);
            else if (n < 0 && errno != ETIMEDOUT && listening >= 0) break;
        }
        if (listening >= 0) close(modbus_get_socket(ctx));
    }
    return 0;
}

static int read_one(modbus_t *ctx, int unit, const char *table, int address, int count)
{
    uint8_t bits[MODBUS_MAX_READ_BITS];
    uint16_t words[MODBUS_MAX_READ_REGISTERS];
    int is_bits = table[0] == 'c' || table[0] == 'd', n = -1;
    modbus_set_slave(ctx, unit);
    if (modbus_connect(ctx) == 0) {
        if (table[0] == 'c') n = modbus_read_bits(ctx, address, count, bits);
        if (table[0] == 'd') n = modbus_read_input_bits(ctx, address, count, bits);
        if (table[0] == 'h') n = modbus_read_registers(ctx, address, count, words);
        if (table[0] == 'i') n = modbus_read_input_registers(ctx, address, count, words);
    }
    if (n != count) return printf("error: %s\n", modbus_strerror(errno)), 1;
    for (int i = 0; i < n; i++) printf("%d ", is_bits ? bits[i] : words[i]);
    return 0;
}

int main(int n, char **word)
{
    if (n == 3 && !strcmp(word[1], "serve-tcp")) {
        modbus_t *ctx = modbus_new_tcp("127.0.0.1", atoi(word[2]));
        int listening = modbus_tcp_listen(ctx, 5);
        return listening < 0 ? 1 : serve(ctx, listening);
    }
    if (n == 4 && !strcmp(word[1], "serve-rtu")) return serve(modbus_new_rtu(word[2], atoi(word[3]), 'N', 8, 1), -1);
    if (n == 7 && !strcmp(word[1], "read"))
        return read_one(modbus_new_tcp("127.0.0.1", atoi(word[2])), atoi(word[3]), word[4], atoi(word[5]), atoi(word[6]));
    return 2;
}
