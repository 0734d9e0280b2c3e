#include "tally.h"
#include "clock.h"
#include "commands.h"

struct tally tally;

void tally_start(struct group *groups, int group_count) {
    tally.groups = groups;
    tally.group_count = group_count;
    tally.touched = allocate((size_t)group_count, sizeof *tally.touched);
}

void tally_begin(void) {
    tally.opened = tally.arrived = tally.acked = 0;
    histogram_clear(&tally.latency);
    tally.touched_count = 0;
    for (int i = 0; i < tally.group_count; i++) {
        struct group *group = &tally.groups[i];
        group->sent = group->arrived = group->acked = 0;
        group->touched = group->complete = false;
    }
    tally.began_ns = now_ns();
}

static void touch(struct group *group) {
    if (group->touched) return;
    group->touched = true;
    tally.touched[tally.touched_count++] = group;
}

void tally_opened(uint64_t took_ns) {
    tally.opened++;
    histogram_record(&tally.latency, took_ns);
}

void tally_mark(struct group *group, uint64_t sent_ns, uint64_t now_ns) {
    if (sent_ns && sent_ns < tally.began_ns) return;
    tally.arrived++;
    group->arrived++;
    touch(group);
    if (sent_ns && sent_ns <= now_ns) histogram_record(&tally.latency, now_ns - sent_ns);
}

void tally_ack(struct group *group) {
    tally.acked++;
    group->acked++;
    touch(group);
}
