/* HTTP requests over keep-alive connections, in one thread.
 *
 *   httpload PORT CONNECTIONS REQUEST_FILE [deadline=120]
 *
 * Each connection sends the bytes of the file, a complete HTTP/1.1 request, waits for the complete response, and is
 * then free for the next request. Writes {"loaded": <connections>}, then executes commands as wsload does:
 *   flood requests=M                              closed loop: M in total, on all connections at the same time
 *   rate per_second=R seconds=S [timeout=5]      open loop: a request waits until a connection is free; its latency
 *                                                 counts from when it was due
 */
#include "clock.h"
#include "histogram.h"
#include "link.h"
#include "response.h"
#include "schedule.h"
#include <stdlib.h>
#include <string.h>

struct client {
    struct link link; /* the first member: see link.h */
    struct response response;
    uint64_t due_ns; /* of the request whose response is awaited */
    bool busy, closed;
};

static struct {
    uint64_t began_ns;
    long sent, answered, not_2xx, late;
    struct histogram latency;
} count;

/* Free connections, as a ring: all take turns, so none is idle so long that the server closes it. */
static struct {
    struct client **ring;
    int size, first, count;
} idle;

static int port;
static char *request;
static size_t request_size;

static void begin(void) {
    memset(&count, 0, sizeof count);
    count.began_ns = now_ns();
}

static void become_idle(struct client *client) {
    client->busy = false;
    idle.ring[(idle.first + idle.count++) % idle.size] = client;
}

static void send_request(uint64_t due_ns) {
    struct client *client = idle.ring[idle.first];
    idle.first = (idle.first + 1) % idle.size;
    idle.count--;
    if (client->closed) link_open(&client->link, port);
    client->closed = false;
    client->due_ns = due_ns;
    client->busy = true;
    link_send(&client->link, request, request_size);
    count.sent++;
    count.late += now_ns() - due_ns > MILLISECOND_NS;
}

/* The server may close a connection that was idle for long. It is opened again when needed. */
static void drop(struct client *client) {
    if (client->busy) fail("connection %d: the server closed it instead of responding", client->link.number);
    link_close(&client->link);
    client->closed = true;
}

static void receive(struct link *link, const char *data, size_t size, uint64_t now_ns) {
    struct client *client = (struct client *)link;
    const char *end = data + size;
    if (!size) return drop(client);
    if (!client->busy) fail("connection %d: a response without a request", link->number);
    if (!response_read(&client->response, &data, end)) return;
    if (client->response.state == BROKEN || data < end)
        fail("connection %d: not a valid response with a length", link->number);
    if (client->due_ns >= count.began_ns) { /* otherwise it belongs to an earlier command that has ended */
        count.answered++;
        count.not_2xx += client->response.status / 100 != 2;
        histogram_record(&count.latency, now_ns - client->due_ns);
    }
    memset(&client->response, 0, sizeof client->response);
    become_idle(client);
}

static void run_flood(const struct words *command, double deadline_s) {
    long requests = (long)number_option(command, "requests", -1);
    struct stopwatch watch = start_stopwatch();
    begin();
    while (count.answered < requests) {
        while (count.sent < requests && idle.count) send_request(now_ns());
        poll_links_steadily();
        if (elapsed_s(&watch) > deadline_s)
            return answer("{\"error\": \"after %g s %ld of %ld requests are answered\"}", deadline_s, count.answered,
                          requests);
    }
    char latency[HISTOGRAM_JSON_SIZE];
    answer("{\"seconds\": %.6f, \"answered\": %ld, \"not_2xx\": %ld, \"latency_us\": %s, \"cpu_s\": %.6f}",
           elapsed_s(&watch), count.answered, count.not_2xx, histogram_json(&count.latency, latency),
           elapsed_cpu_s(&watch));
}

static void run_rate(const struct words *command) {
    struct schedule schedule = read_schedule(command);
    struct stopwatch watch = start_stopwatch();
    begin();
    uint64_t end = end_ns(&schedule, count.began_ns), now;
    while (count.answered < schedule.total && (now = now_ns()) < end) {
        uint64_t due = end; /* if there is nothing to send, or no free connection */
        while (idle.count && count.sent < schedule.total) {
            due = due_ns(&schedule, count.began_ns, count.sent);
            if (due > now) break;
            send_request(due);
            due = end;
        }
        poll_links(POLL_FEW, due - now);
    }
    char latency[HISTOGRAM_JSON_SIZE];
    answer("{\"seconds\": %.6f, \"answered\": %ld, \"not_2xx\": %ld, \"late\": %ld, \"missing\": %ld, "
           "\"latency_us\": %s, \"cpu_s\": %.6f}",
           elapsed_s(&watch), count.answered, count.not_2xx, count.late, schedule.total - count.answered,
           histogram_json(&count.latency, latency), elapsed_cpu_s(&watch));
}

int main(int argc, char **argv) {
    if (argc < 4) fail("usage: httpload PORT CONNECTIONS REQUEST_FILE [deadline=120]");
    struct words options = arguments_from(4, argc, argv), command;
    double deadline_s = number_option(&options, "deadline", 120);
    port = atoi(argv[1]);
    int connections = atoi(argv[2]);
    if (connections < 1 || connections > LINKS_MAX) fail("the number of connections must be 1 to %d", LINKS_MAX);
    request = read_file(argv[3], &request_size);
    struct client *clients = allocate((size_t)connections, sizeof *clients);
    idle.size = connections;
    idle.ring = allocate((size_t)connections, sizeof *idle.ring);
    links_start(receive);
    for (int i = 0; i < connections; i++) {
        clients[i].link.number = i;
        link_open(&clients[i].link, port);
        become_idle(&clients[i]);
    }
    answer("{\"loaded\": %d}", connections);
    while (await_command(&command)) {
        const char *name = command.at[0];
        if (!strcmp(name, "flood")) run_flood(&command, deadline_s);
        else if (!strcmp(name, "rate")) run_rate(&command);
        else if (!strcmp(name, "quit")) break;
        else fail("unknown command %s", name);
    }
    return 0;
}
