#include "clock.h"
#include "schedule.h"
#include "traffic.h"

/* The parameters and the progress of a flood. */
struct flood {
    long window, messages, copies;
    bool acks;
    int groups_left;
};

static void begin(const struct plan *plan) {
    for (int i = 0; i < plan->connection_count; i++) plan->connections[i].stale = plan->connections[i].unacked;
    counters_begin();
}

static void publish_next(struct group *group, uint64_t time_ns) {
    struct connection *publisher = group->publishers[group->next_publisher];
    if (++group->next_publisher == group->publisher_count) group->next_publisher = 0;
    group->sent++;
    connection_publish(publisher, time_ns);
}

static long completed(const struct flood *flood, const struct group *group) {
    if (!flood->copies) return group->acked;
    long delivered = group->arrived / flood->copies;
    return flood->acks && group->acked < delivered ? group->acked : delivered;
}

/* Publishes as many messages as the window allows. False: the command was answered with an error. */
static bool publish_allowed(struct flood *flood, struct group *group) {
    if (!group->publisher_count) return true;
    if (flood->copies && group->arrived > group->sent * flood->copies) {
        answer("{\"error\": \"group %ld: %ld marks for %ld messages of %ld copies\"}", (long)(group - counters.groups),
               group->arrived, group->sent, flood->copies);
        return false;
    }
    long complete = completed(flood, group);
    while (group->sent < flood->messages && group->sent - complete < flood->window) publish_next(group, now_ns());
    if (complete == flood->messages && !group->complete) {
        group->complete = true; /* late messages may touch the group again */
        flood->groups_left--;
    }
    return true;
}

/* After each poll instead of each mark: so the server receives several messages in a row, as from many busy clients. */
static bool publish_touched(struct flood *flood) {
    while (counters.touched_count) {
        struct group *group = counters.touched[--counters.touched_count];
        group->touched = false;
        if (!publish_allowed(flood, group)) return false;
    }
    return true;
}

static void answer_missing(const struct flood *flood, double deadline_s) {
    const struct group *group = counters.groups;
    while (!group->publisher_count || completed(flood, group) >= flood->messages) group++;
    answer("{\"error\": \"after %g s %d groups are incomplete; group %ld: %ld of %ld messages sent, %ld of %ld marks "
           "arrived, %ld acknowledged\"}",
           deadline_s, flood->groups_left, (long)(group - counters.groups), group->sent, flood->messages,
           group->arrived, flood->messages * flood->copies, group->acked);
}

static long total_sent(void) {
    long sent = 0;
    for (int i = 0; i < counters.group_count; i++) sent += counters.groups[i].sent;
    return sent;
}

void run_flood(const struct plan *plan, const struct words *command, double deadline_s) {
    struct flood flood = {.window = (long)number_option(command, "window", -1),
                          .messages = (long)number_option(command, "messages", -1),
                          .copies = (long)number_option(command, "copies", -1),
                          .acks = number_option(command, "acks", 0) > 0};
    if (flood.window < 1 || flood.messages < 1) fail("a flood needs a window and messages");
    if (!flood.copies && !flood.acks) fail("a flood needs copies or acks, to know when a message is complete");
    struct stopwatch watch = start_stopwatch();
    begin(plan);
    for (int i = 0; i < plan->group_count; i++) {
        flood.groups_left += plan->groups[i].publisher_count > 0;
        publish_allowed(&flood, &plan->groups[i]);
    }
    if (!flood.groups_left) fail("no connection publishes");
    while (flood.groups_left) {
        poll_links_steadily();
        if (!publish_touched(&flood)) return;
        if (elapsed_s(&watch) > deadline_s) return answer_missing(&flood, deadline_s);
    }
    char latency[HISTOGRAM_JSON_SIZE];
    answer("{\"seconds\": %.6f, \"sent\": %ld, \"arrived\": %ld, \"acked\": %ld, \"latency_us\": %s, \"cpu_s\": %.6f}",
           elapsed_s(&watch), total_sent(), counters.arrived, counters.acked,
           histogram_json(&counters.latency, latency), elapsed_cpu_s(&watch));
}

static struct group *next_group(const struct plan *plan, int *at) {
    for (int tried = 0; tried < plan->group_count; tried++) {
        struct group *group = &plan->groups[*at];
        *at = (*at + 1) % plan->group_count;
        if (group->publisher_count) return group;
    }
    fail("no connection publishes");
}

void run_rate(const struct plan *plan, const struct words *command) {
    struct schedule schedule = read_schedule(command);
    long copies = (long)number_option(command, "copies", -1), sent = 0, late = 0;
    int at = 0;
    struct stopwatch watch = start_stopwatch();
    begin(plan);
    for (;;) {
        uint64_t now = now_ns(), due = 0;
        while (sent < schedule.total && (due = due_ns(&schedule, counters.began_ns, sent)) <= now) {
            publish_next(next_group(plan, &at), due);
            late += now_ns() - due > MILLISECOND_NS;
            sent++;
        }
        bool all_sent = sent == schedule.total;
        if (all_sent && counters.arrived >= sent * copies) break;
        uint64_t wake_ns = all_sent ? end_ns(&schedule, counters.began_ns) : due;
        if (all_sent && now >= wake_ns) break;
        poll_links(POLL_FEW, wake_ns - now);
    }
    long missing = sent * copies - counters.arrived;
    char latency[HISTOGRAM_JSON_SIZE];
    answer("{\"seconds\": %.6f, \"sent\": %ld, \"arrived\": %ld, \"acked\": %ld, \"late\": %ld, \"missing\": %ld, "
           "\"latency_us\": %s, \"cpu_s\": %.6f}",
           elapsed_s(&watch), sent, counters.arrived, counters.acked, late, missing > 0 ? missing : 0,
           histogram_json(&counters.latency, latency), elapsed_cpu_s(&watch));
}
