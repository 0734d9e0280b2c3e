/* Reads commands from stdin, one per line, and writes a line of JSON for each. An error that ends the program goes to
   stderr. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { WORDS_MAX = 8 };

/* `name key=value key=value ...`: a command, or the arguments of the program. */
struct words {
    char *at[WORDS_MAX];
    int count;
};

/* Waits for the next command. Meanwhile connections are served, so that pings are answered. False: end of input. */
bool await_command(struct words *command);

/* The arguments of the program, starting with number `first`. */
struct words arguments_from(int first, int argc, char **argv);

/* The value of an option, or NULL. */
const char *text_option(const struct words *words, const char *name);

/* The value of an option as a number >= 0, or `fallback`. If `fallback` < 0, the option is required. */
double number_option(const struct words *words, const char *name, double fallback);

/* Writes a line to stdout and flushes it. */
void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes a line to stderr and ends the program with exit code 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads a whole file and appends a 0. Fails if the file cannot be read. */
char *read_file(const char *name, size_t *size);

/* Zeroed memory. Fails if there is not enough. */
void *allocate(size_t count, size_t size);
