/*
 * What the host's /proc says of a process.
 */
#include "exec.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char *last_parenthesis(char *text)
{
	char *last = NULL;

	while ((text = strchr(text, ')')))
		last = text++;
	return last;
}

static uint64_t read_number(const char *text)
{
	uint64_t value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (uint64_t)(*text++ - '0');
	return value;
}

/* A number of /proc/PID/stat, counted from the end of the name, which may hold anything (proc(5)). */
uint64_t stat_field(pid_t pid, enum stat_field wanted)
{
	char path[32], text[1024];
	ssize_t got;
	char *at;
	int fd;

	*add_text(add_number(path, (unsigned)pid), "/stat") = 0;
	fd = open_at_host_proc(path, O_RDONLY);
	got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	at = last_parenthesis(text);
	for (int field = 2; at && field < (int)wanted; field++)
		at = strchr(at + 1, ' ');
	return at ? read_number(at + 1) : 0;
}
