/* Very many WebSocket connections in one thread, fast enough not to be the bottleneck of a measurement.
 *
 *   wsload PORT PATH PLAN [initial_messages=N] [ack=HEX] [deadline=120]
 *
 * The program knows only WebSocket. In payloads it finds marks (scan.h) and acknowledgements (the bytes of `ack`).
 * PLAN is a file (plan.h) with the messages of each connection. `initial_messages` is the number of messages that the
 * server sends before the first setup message. The program writes {"loaded": <connections>} and then executes the
 * commands on stdin (traffic.h), one per line. It answers each with a line of JSON: the results, or {"error": "..."}
 * after the deadline (seconds). `quit` or the end of stdin ends the program. Pings are always answered. If the server
 * ends a connection, the program ends with exit code 1 and writes the connection and the reason to stderr.
 *
 * From low to high: link (sockets), response and websocket (the stream), scan (the payload), counters, connection,
 * plan (all connections), connecting and publishing (the commands).
 */
#include "traffic.h"
#include <stdlib.h>
#include <string.h>

static struct pattern read_pattern(const char *hex) {
    if (!hex) return (struct pattern){.size = 0};
    char *bytes = strdup(hex);
    long size = bytes ? decode_hex(bytes) : -1;
    if (size < 0) fail("ack must be in hex: %s", hex);
    return make_pattern(bytes, (size_t)size);
}

int main(int argc, char **argv) {
    if (argc < 4) fail("usage: wsload PORT PATH PLAN [initial_messages=N] [ack=HEX] [deadline=120]");
    struct words options = arguments_from(4, argc, argv), command;
    double deadline_s = number_option(&options, "deadline", 120);
    struct plan plan = read_plan(argv[3]);
    counters_start(plan.groups, plan.group_count);
    connections_start(atoi(argv[1]), argv[2], (int)number_option(&options, "initial_messages", 0),
                      read_pattern(text_option(&options, "ack")));
    answer("{\"loaded\": %d}", plan.connection_count);
    while (await_command(&command)) {
        const char *name = command.at[0];
        if (!strcmp(name, "connect")) run_connect(&plan, &command, deadline_s);
        else if (!strcmp(name, "flood")) run_flood(&plan, &command, deadline_s);
        else if (!strcmp(name, "rate")) run_rate(&plan, &command);
        else if (!strcmp(name, "quit")) break;
        else fail("unknown command %s", name);
    }
    return 0;
}
