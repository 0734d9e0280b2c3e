/* Finds marks and acknowledgements in payloads, which may be divided at any place. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A mark is '~' and 16 hex digits of a time in nanoseconds. Time 0 means that the time of sending is unknown. A '~'
   with fewer digits is not a mark. A zeroed struct is the initial state. */
enum { MARK = '~', MARK_DIGITS = 16 };

struct mark {
    uint64_t time_ns;
    int digits;
    bool begun;
};

/* True: found a mark; *data is behind it. False: no further mark, but the beginning of one may have been read. */
bool next_mark(struct mark *mark, const char **data, const char *end, uint64_t *time_ns);

/* Writes a time as 16 hex digits. */
void write_time(char *out, uint64_t time_ns);

/* A pointer to the 16 hex digits behind a '~', the place for a time; NULL if there is none. */
char *find_mark(char *data, size_t size);

/* A byte string to search for; `size` 0: none. */
struct pattern {
    const char *bytes;
    size_t size;
    size_t *fallback; /* [n]: how many bytes still match if the byte after the first n + 1 does not */
};

struct pattern make_pattern(const char *bytes, size_t size);

/* True: found one; *data is behind it. `matched` is the state between calls, initially 0. */
bool next_match(const struct pattern *pattern, size_t *matched, const char **data, const char *end);
