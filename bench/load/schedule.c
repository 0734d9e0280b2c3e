#include "schedule.h"
#include "clock.h"
#include <math.h>

struct schedule read_schedule(const struct words *command) {
    double per_second = number_option(command, "per_second", -1);
    if (per_second <= 0) fail("the rate must be above 0, not %g", per_second);
    return (struct schedule){.interval_ns = SECOND_NS / per_second,
                             .timeout_ns = SECOND_NS * number_option(command, "timeout", 5),
                             .total = lround(per_second * number_option(command, "seconds", -1))};
}

uint64_t due_ns(const struct schedule *schedule, uint64_t began_ns, long number) {
    return began_ns + (uint64_t)((double)number * schedule->interval_ns);
}

uint64_t end_ns(const struct schedule *schedule, uint64_t began_ns) {
    return due_ns(schedule, began_ns, schedule->total) + (uint64_t)schedule->timeout_ns;
}
