#include "clock.h"
#include "traffic.h"

enum { OPENED_BETWEEN_POLLS = 64, POLL_WAIT_NS = 100 * MILLISECOND_NS };

static void answer_missing(const struct plan *plan, long awaited, double deadline_s) {
    const struct connection *connection = plan->connections;
    while (connection->state == OPEN) connection++;
    answer("{\"error\": \"after %g s %ld of %ld connections are open; connection %d awaits %s\"}", deadline_s,
           counters.opened, awaited, connection->link.number, connection_awaits(connection));
}

void run_connect(const struct plan *plan, const struct words *command, double deadline_s) {
    long marks = (long)number_option(command, "marks", 0);
    long concurrency = (long)number_option(command, "concurrency", -1);
    if (!concurrency) concurrency = LINKS_MAX;
    struct connection *next = plan->connections, *end = next + plan->connection_count;
    long awaited = 0, begun = 0;
    for (struct connection *each = next; each < end; each++) awaited += each->state != OPEN;
    struct stopwatch watch = start_stopwatch();
    counters_begin();
    while (counters.opened < awaited) {
        int opened = 0;
        for (; next < end && begun - counters.opened < concurrency && opened < OPENED_BETWEEN_POLLS; next++) {
            if (next->state != CLOSED) continue;
            connection_open(next, marks);
            begun++;
            opened++;
        }
        poll_links(POLL_MANY, opened == OPENED_BETWEEN_POLLS ? 0 : POLL_WAIT_NS);
        if (elapsed_s(&watch) > deadline_s) return answer_missing(plan, awaited, deadline_s);
    }
    char latency[HISTOGRAM_JSON_SIZE];
    answer("{\"seconds\": %.6f, \"count\": %ld, \"latency_us\": %s, \"cpu_s\": %.6f}", elapsed_s(&watch),
           counters.opened, histogram_json(&counters.latency, latency), elapsed_cpu_s(&watch));
}
