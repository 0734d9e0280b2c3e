/* What is looked for in payloads, which may be cut anywhere: marks and acknowledgements. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A mark is '~' and 16 hex digits of a time in nanoseconds; one with a time of 0 does not tell when it was sent. A '~'
   with less behind it is none. Zeroed: none is being read. */
enum { MARK = '~', MARK_DIGITS = 16 };

struct mark {
    uint64_t time_ns;
    int digits;
    bool begun;
};

/* True: there is a mark, and *data has moved behind it. False: no more, but one may have begun. */
bool next_mark(struct mark *mark, const char **data, const char *end, uint64_t *time_ns);

/* Writes a time as 16 hex digits. */
void write_time(char *out, uint64_t time_ns);

/* Where 16 hex digits follow a '~', there is room for a time: a pointer to it, or NULL. */
char *find_mark(char *data, size_t size);

/* A fixed string of bytes to look for; `size` 0: none. */
struct pattern {
    const char *bytes;
    size_t size;
    size_t *fallback; /* [n]: how many bytes still match when the one after the first n + 1 does not */
};

struct pattern make_pattern(const char *bytes, size_t size);

/* True: there is one, and *data has moved behind it. `matched` is kept between calls; 0 at the beginning. */
bool next_match(const struct pattern *pattern, size_t *matched, const char **data, const char *end);
