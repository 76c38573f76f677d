/*
 * Reads the spec of one Exec out of its memfd. The daemon wrote it, so a fault is a bug, but every length is
 * checked: a wrong one must not become a jump.
 */
#include "exec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { MOST_BYTES = 64 << 20 };

/* Pointers to `count` strings, a NULL after them, and room for one more; NULL if they are not there. */
static char **take_strings(char **at, const char *end, uint32_t count)
{
	char **list = calloc((size_t)count + 2, sizeof *list);

	for (uint32_t i = 0; list && i < count; i++) {
		char *nul = memchr(*at, 0, (size_t)(end - *at));

		if (!nul)
			return NULL;
		list[i] = *at;
		*at = nul + 1;
	}
	return list;
}

static int take_all_strings(struct spec *spec, const uint32_t *words, char *at, const char *end)
{
	char **last;

	spec->argv = take_strings(&at, end, words[SPEC_ARGV]);
	spec->environment = spec->argv ? take_strings(&at, end, words[SPEC_ENVIRONMENT]) : NULL;
	spec->tasks = spec->environment ? take_strings(&at, end, words[SPEC_TASKS]) : NULL;
	last = spec->tasks ? take_strings(&at, end, 2) : NULL;
	if (!last || at != end)
		return -1;
	spec->environment_count = words[SPEC_ENVIRONMENT];
	spec->task_count = words[SPEC_TASKS];
	spec->directory = last[0];
	spec->cgroup = last[1];
	return 0;
}

static bool counts_fit(const uint32_t *words, uint64_t size)
{
	uint64_t all = SPEC_WORDS * sizeof *words + words[SPEC_LIMITS] * (uint64_t)sizeof(struct limit)
		+ words[SPEC_FILTER] * UINT64_C(8) + words[SPEC_STRING_BYTES];

	return words[SPEC_MAGIC] == SPEC_MAGIC_VALUE && words[SPEC_SIZE] == size && all == size
		&& words[SPEC_FILTER] <= UINT16_MAX && words[SPEC_ARGV] >= 1 && words[SPEC_TASKS] <= MOST_TASKS
		&& (uint64_t)words[SPEC_ARGV] + words[SPEC_ENVIRONMENT] + words[SPEC_TASKS] + 2 <= words[SPEC_STRING_BYTES];
}

int read_spec(struct spec *spec)
{
	struct stat file;
	uint32_t *words;
	char *at;

	if (fstat(SPEC_FD, &file) < 0 || file.st_size < (off_t)(SPEC_WORDS * sizeof *words) || file.st_size > MOST_BYTES)
		return -1;
	words = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, SPEC_FD, 0);
	if (words == MAP_FAILED || !counts_fit(words, (uint64_t)file.st_size))
		return -1;
	spec->flags = words[SPEC_FLAGS];
	spec->uid = words[SPEC_UID];
	spec->gid = words[SPEC_GID];
	spec->host_uid = words[SPEC_HOST_UID];
	spec->window = words[SPEC_WINDOW];
	spec->bound = words[SPEC_SPOOL_BYTES];
	spec->limit_count = words[SPEC_LIMITS];
	spec->filter_count = words[SPEC_FILTER];
	at = (char *)(words + SPEC_WORDS);
	spec->limits = (const struct limit *)at;
	at += spec->limit_count * sizeof(struct limit);
	spec->filter = at;
	at += spec->filter_count * 8;
	return take_all_strings(spec, words, at, (char *)words + file.st_size);
}
