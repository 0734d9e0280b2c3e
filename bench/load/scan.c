#include "scan.h"
#include "commands.h"
#include <string.h>

/* The value of a hex digit plus 1; 0 for other bytes. A table, because every copy of every message has 16 digits. */
static const uint8_t DIGITS[256] = {
    ['0'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ['A'] = 11, 12, 13, 14, 15, 16, ['a'] = 11, 12, 13, 14, 15, 16,
};

/* Less than 0: not a digit. */
static int digit_value(char digit) {
    return DIGITS[(unsigned char)digit] - 1;
}

bool next_mark(struct mark *mark, const char **data, const char *end, uint64_t *time_ns) {
    const char *at = *data;
    for (;;) {
        if (!mark->begun) {
            at = memchr(at, MARK, (size_t)(end - at));
            if (!at) return false;
            at++;
            *mark = (struct mark){.begun = true};
        }
        for (; at < end && mark->digits < MARK_DIGITS; at++, mark->digits++) {
            int value = digit_value(*at);
            if (value < 0) break;
            mark->time_ns = mark->time_ns << 4 | (uint64_t)value;
        }
        bool whole = mark->digits == MARK_DIGITS;
        if (at == end && !whole) return false;
        mark->begun = false;
        if (!whole) continue; /* another meaning of the same byte, for example a length of 126 in Protobuf */
        *data = at;
        *time_ns = mark->time_ns;
        return true;
    }
}

void write_time(char *out, uint64_t time_ns) {
    for (int i = MARK_DIGITS - 1; i >= 0; i--, time_ns >>= 4) out[i] = "0123456789abcdef"[time_ns & 15];
}

char *find_mark(char *data, size_t size) {
    char *at = size ? memchr(data, MARK, size) : NULL;
    if (!at || data + size - at <= MARK_DIGITS) return NULL;
    for (int i = 1; i <= MARK_DIGITS; i++)
        if (digit_value(at[i]) < 0) return NULL;
    return at + 1;
}

struct pattern make_pattern(const char *bytes, size_t size) {
    size_t *fallback = allocate(size, sizeof *fallback), matched = 0;
    for (size_t i = 1; i < size; i++) {
        while (matched && bytes[matched] != bytes[i]) matched = fallback[matched - 1];
        if (bytes[matched] == bytes[i]) matched++;
        fallback[i] = matched;
    }
    return (struct pattern){bytes, size, fallback};
}

bool next_match(const struct pattern *pattern, size_t *matched, const char **data, const char *end) {
    const char *at = *data;
    if (!*matched && (size_t)(end - at) >= pattern->size) {
        /* Usually the pattern is complete or absent; the C library finds that faster. If it is absent, its beginning may
           be at the end of the data. */
        const char *found = memmem(at, (size_t)(end - at), pattern->bytes, pattern->size);
        if (found) {
            *data = found + pattern->size;
            return true;
        }
        at = end - (pattern->size - 1);
    }
    for (; at < end; at++) {
        while (*matched && pattern->bytes[*matched] != *at) *matched = pattern->fallback[*matched - 1];
        if (pattern->bytes[*matched] == *at) ++*matched;
        if (*matched < pattern->size) continue;
        *matched = 0;
        *data = at + 1;
        return true;
    }
    return false;
}
