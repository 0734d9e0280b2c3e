/* Very many WebSocket connections in one thread, cheap enough not to be the bottleneck of what they measure.
 *
 *   wsload PORT PATH PLAN [unprompted=N] [ack=HEX] [deadline=120]
 *
 * It knows no protocol but WebSocket, and bytes it is told to look for: marks (scan.h) and acknowledgements (`ack`).
 * PLAN is a file (plan.h) with what each connection says; `unprompted` is how many messages the server sends before it
 * is greeted. Prints {"loaded": <connections>}, then obeys the commands on stdin (traffic.h), a line each, and answers
 * each with a line of JSON: what was measured, or {"error": "..."} if the deadline, in seconds, came first. `quit` or
 * the end of stdin ends it. Pings are answered at all times; if the server ends a connection, the program ends with 1
 * and says on stderr which and why.
 *
 * From the bottom: link (sockets), response and websocket (what is in the stream), scan (what is in the payload), tally
 * (what is counted), connection (one of them), plan (all of them), connecting and publishing (the commands).
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
    if (argc < 4) fail("usage: wsload PORT PATH PLAN [unprompted=N] [ack=HEX] [deadline=120]");
    struct words options = arguments_from(4, argc, argv), command;
    double deadline_s = number_option(&options, "deadline", 120);
    struct plan plan = read_plan(argv[3]);
    tally_start(plan.groups, plan.group_count);
    connections_start(atoi(argv[1]), argv[2], (int)number_option(&options, "unprompted", 0),
                      read_pattern(text_option(&options, "ack")));
    answer("{\"loaded\": %d}", plan.connection_count);
    while (await_command(&command)) {
        const char *name = command.at[0];
        if (!strcmp(name, "connect")) run_connect(&plan, &command, deadline_s);
        else if (!strcmp(name, "flood")) run_flood(&plan, &command, deadline_s);
        else if (!strcmp(name, "rate")) run_rate(&plan, &command);
        else if (!strcmp(name, "quit")) break;
        else fail("there is no command %s", name);
    }
    return 0;
}
