/*
 * What the modes of the one static C program share.
 *
 * Each mode is one process that has to outlive the daemon and the launcher, or has to be small:
 *
 *     init   PID 1 of a container                                   init.c
 *     keep   its parent outside, which sees how it ends             keep.c
 *     exec   the supervisor of one process started by Exec          exec.c and its neighbours
 *
 * No stdio, no locale, no threads: a container's share of memory is a few pages.
 */
#ifndef SYSPROC_NATIVE_H
#define SYSPROC_NATIVE_H

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int main(int argc, char **argv);
int init_main(void);
int keep_main(void);
int exec_main(void);

/* Name of the process in ps and top, and nobody reads its memory: it holds fds of the host. */
void hide_and_name(const char *name);

/* Signals that an operator's terminal or a careless `kill` sends; what we guard has to go on. */
void ignore_termination(void);

/* Appends to a text that has room for it; both return the new end, which is not ended by NUL. */
char *add_text(char *to, const char *text);
char *add_number(char *to, unsigned number);

#endif
