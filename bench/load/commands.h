/* The conversation with whoever started the program: a line in, a line of JSON out, one on stderr if it fails. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { WORDS_MAX = 8 };

/* `name key=value key=value ...`: a command, or the program's own arguments. */
struct words {
    char *at[WORDS_MAX];
    int count;
};

/* Waits for the next command; meanwhile connections are served, so that pings are answered. False: there is none. */
bool await_command(struct words *command);

/* The program's arguments from the given one on. */
struct words arguments_from(int first, int argc, char **argv);

/* The value of an option, or NULL. */
const char *text_option(const struct words *words, const char *name);

/* The value of an option as a number >= 0, or the fallback; a fallback < 0 makes the option compulsory. */
double number_option(const struct words *words, const char *name, double fallback);

/* Prints a line on stdout at once. */
void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints a line on stderr and ends the program with 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads a whole file, or the program fails; a 0 follows what it holds. */
char *read_file(const char *name, size_t *size);

/* Memory, zeroed, or the program fails. */
void *allocate(size_t count, size_t size);
