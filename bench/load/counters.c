#include "counters.h"
#include "clock.h"
#include "commands.h"

struct counters counters;

void counters_start(struct group *groups, int group_count) {
    counters.groups = groups;
    counters.group_count = group_count;
    counters.touched = allocate((size_t)group_count, sizeof *counters.touched);
}

void counters_begin(void) {
    counters.opened = counters.arrived = counters.acked = 0;
    histogram_clear(&counters.latency);
    counters.touched_count = 0;
    for (int i = 0; i < counters.group_count; i++) {
        struct group *group = &counters.groups[i];
        group->sent = group->arrived = group->acked = 0;
        group->touched = group->complete = false;
    }
    counters.began_ns = now_ns();
}

static void touch(struct group *group) {
    if (group->touched) return;
    group->touched = true;
    counters.touched[counters.touched_count++] = group;
}

void counters_opened(uint64_t took_ns) {
    counters.opened++;
    histogram_record(&counters.latency, took_ns);
}

void counters_mark(struct group *group, uint64_t sent_ns, uint64_t now_ns) {
    if (sent_ns && sent_ns < counters.began_ns) return;
    counters.arrived++;
    group->arrived++;
    touch(group);
    if (sent_ns && sent_ns <= now_ns) histogram_record(&counters.latency, now_ns - sent_ns);
}

void counters_ack(struct group *group) {
    counters.acked++;
    group->acked++;
    touch(group);
}
