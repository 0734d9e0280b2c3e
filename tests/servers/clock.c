/* Preloaded into a server: adds an offset to its wall clock. The file BEACONFIRE_TEST_CLOCK holds the offset in
 * nanoseconds as eight bytes, and may change at any time. Monotonic clocks stay as they are. Nothing here allocates
 * memory, because the server's allocator reads the clock. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000

static volatile int64_t *offset_ns;

static int64_t read_offset_ns(void) {
    if (!offset_ns) {
        const char *path = getenv("BEACONFIRE_TEST_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0) return 0;
        void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (found == MAP_FAILED) return 0;
        offset_ns = found;
    }
    return *offset_ns;
}

static void add_offset(struct timespec *time) {
    int64_t sum_ns = time->tv_nsec + read_offset_ns();
    time->tv_sec += sum_ns / BILLION;
    time->tv_nsec = sum_ns % BILLION;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) add_offset(time);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
