/*
 * What all channels of the battery share: how a target and an attempt speak with the test. See main.c.
 */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

struct channel {
	const char *name;
	void (*target)(void);
	void (*attempt)(void);
};

/* Eight hex digits each: what only the target knows, and what only the attempt knows. */
extern char secret[9], message[9];
/* "ss-" and the secret: short enough for the name of a process, and easily found. */
extern char marker[16];

uint32_t number(const char *digits);

/* -- the target */
void hint(const char *name, const char *format, ...);
void ready(void); /* returns when the test asks what has happened */
void received(const void *data, long size);

/* -- the attempt */
const char *given(const char *name, int index); /* hints, and what else the test knows; NULL at the end */
void learned(const void *data, long size);
void search(const void *data, long size); /* learned, if there is a marker in it, or a given needle */
void search_file(const char *path);
void tried(const char *what, const char *on, long result);
void held(void); /* returns when the target has been asked */

/* -- both */
void reached(const char *format, ...);
long must(const char *what, long result); /* or there is no such channel here */
void write_file(const char *path, const char *text);
char *in_tmp(const char *name); /* a path with the secret in it */

#define each(name, value) \
	(const char *value, *index_ = NULL; (value = given(name, (int)(index_ - (const char *)NULL))) != NULL; index_++)

/* Every path by which a file of the target might be found. */
const char *way(const char *path, int index);
