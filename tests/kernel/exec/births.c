/*
 * Looks, from inside a container, at processes that are born there: what everybody may read of them has to be what it
 * is for us from their first moment on. Who bears them is in the test.
 *
 *     births COUNT FILE...     FILE: below /proc/PID. Prints what was different, ends when it has seen COUNT births.
 *
 * The next pids are guessed, so that no birth is missed for reading a directory; if too many came at once, the kernel
 * says which was the last.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GUESSES = 4, MOST = 65536 };

static char ours[8][MOST], seen[MOST];

static ssize_t read_file(const char *process, const char *file, char *to)
{
	char path[128];
	ssize_t got, all = 0;
	int fd;

	snprintf(path, sizeof path, "/proc/%s/%s", process, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	while ((got = read(fd, to + all, MOST - 1 - all)) > 0)
		all += got;
	close(fd);
	to[all] = 0;
	return all;
}

static void look_at(const char *process, char **files)
{
	for (int i = 0; files[i]; i++)
		if (read_file(process, files[i], seen) > 0 && strcmp(seen, ours[i])) {
			printf("%s of a newborn: %.*s\n", files[i], 300, seen);
			fflush(stdout);
		}
}

static int is_there(const char *process)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%s", process);
	return !access(path, F_OK);
}

static int last_pid(void)
{
	char load[128], *at;
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, load, sizeof load - 1);

	close(fd);
	load[got > 0 ? got : 0] = 0;
	at = strrchr(load, ' ');
	return at ? atoi(at) : 0;
}

int main(int argc, char **argv)
{
	int wanted = atoi(argv[1]), last = getpid(), births = 0;
	char **files = argv + 2, process[16];

	for (int i = 0; files[i]; i++)
		read_file("self", files[i], ours[i]);
	printf("ready\n");
	fflush(stdout);
	while (births < wanted) {
		for (int pid = last + 1; pid <= last + GUESSES; pid++) {
			snprintf(process, sizeof process, "%d", pid);
			if (!is_there(process))
				continue;
			look_at(process, files);
			births++;
			last = pid;
			while (is_there(process) && births < wanted)
				look_at(process, files);
		}
		if (last_pid() > last + GUESSES)
			last = last_pid();
	}
	printf("%d births\n", births);
	return 0;
}
