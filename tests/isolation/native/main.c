/*
 * The two ends of every channel of the isolation battery, compiled and run by tests/isolation.
 *
 *     list                                the names of all channels
 *     target CHANNEL SECRET               sets the channel up, and says whether something came through
 *     attempt CHANNEL MESSAGE NAME=VALUE… tries to come through; knows everything that the target hinted at
 *
 *     target                                             attempt
 *       hint NAME VALUE …
 *       ready
 *       (waits for a line)                                 tried WHAT ON ERRNO, learned TEXT, reached TEXT
 *                                                          held
 *       <- a line                                          (waits for a line)
 *       received TEXT, reached TEXT; ends
 *                                                          <- a line
 *                                                          learned TEXT, reached TEXT; ends
 *
 * Something has crossed if the attempt learned the secret, the target received the message, or one has seen an effect
 * of the other: reached. `absent WHAT ERRNO` ends either: this kernel has no such thing, or does not give it here.
 * The families of channels are in the other files.
 */
#include "battery.h"
#include <signal.h>
#include <stdarg.h>

extern const struct channel signals[], processes[], process_files[], namespaces[], unix_sockets[], internet[],
	netlink_sockets[], ipc[], files[], locks[], keyrings[], kernel_objects[], counters[], traces[], volume_files[],
	volume_objects[];
static const struct channel *const families[] = {
	signals, processes, process_files, namespaces, unix_sockets, internet, netlink_sockets, ipc, files, locks,
	keyrings, kernel_objects, counters, traces, volume_files, volume_objects,
};

char secret[9], message[9], marker[16];
static char **arguments;

uint32_t number(const char *digits)
{
	return (uint32_t)strtoul(digits, NULL, 16);
}

static void say(const char *word, const void *data, long size)
{
	const unsigned char *bytes = data;

	printf("%s ", word);
	for (long i = 0; i < size; i++)
		putchar(bytes[i] > 32 && bytes[i] < 127 ? bytes[i] : ' ');
	putchar('\n');
}

void hint(const char *name, const char *format, ...)
{
	va_list list;

	printf("hint %s ", name);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	putchar('\n');
}

void reached(const char *format, ...)
{
	va_list list;

	printf("reached ");
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	putchar('\n');
}

static void wait_for_line(void)
{
	char byte = 0;

	fflush(stdout);
	while (byte != '\n') {
		long got = read(0, &byte, 1);

		if (got == 0 || (got < 0 && errno != EINTR))
			exit(3);
	}
}

void ready(void)
{
	puts("ready");
	wait_for_line();
}

void held(void)
{
	puts("held");
	wait_for_line();
}

void received(const void *data, long size)
{
	if (size > 0)
		say("received", data, size);
}

void learned(const void *data, long size)
{
	if (size > 0)
		say("learned", data, size);
}

void search(const void *data, long size)
{
	const char *at = data, *end = at + size;

	for each("needle", needle)
		if (size > 0 && memmem(data, (size_t)size, needle, strlen(needle)))
			say("learned", needle, (long)strlen(needle));
	while (end - at >= 11 && (at = memmem(at, (size_t)(end - at), "ss-", 3)) != NULL && end - at >= 11) {
		say("learned", at, 11);
		at += 3;
	}
}

void search_file(const char *path)
{
	static char buffer[1 << 18];
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	long got;

	if (fd < 0)
		return;
	for (int i = 0; i < 64 && (got = read(fd, buffer, sizeof buffer)) > 0; i++)
		search(buffer, got);
	close(fd);
}

void tried(const char *what, const char *on, long result)
{
	printf("tried %s %s %d\n", what, on, result < 0 ? errno : 0);
}

long must(const char *what, long result)
{
	if (result < 0) {
		printf("absent %s %d\n", what, errno);
		exit(0);
	}
	return result;
}

const char *given(const char *name, int index)
{
	size_t length = strlen(name);

	for (char **argument = arguments; *argument; argument++)
		if (!strncmp(*argument, name, length) && (*argument)[length] == '=' && index-- == 0)
			return *argument + length + 1;
	return NULL;
}

const char *way(const char *path, int index)
{
	static char found[4096];
	const char *pid;

	if (index == 0)
		return path;
	pid = index == 1 ? "1" : given("pid", index - 2);
	if (!pid)
		return NULL;
	snprintf(found, sizeof found, "/proc/%s/root%s", pid, path);
	return found;
}

void write_file(const char *path, const char *text)
{
	int fd = (int)must(path, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));

	must("write", write(fd, text, strlen(text)));
	close(fd);
}

char *in_tmp(const char *name)
{
	static char path[128];

	snprintf(path, sizeof path, "/tmp/battery-%s-%s", name, secret);
	return path;
}

static const struct channel *find(const char *name)
{
	for (size_t i = 0; i < sizeof families / sizeof *families; i++)
		for (const struct channel *one = families[i]; one->name; one++) {
			if (!name)
				puts(one->name);
			else if (!strcmp(one->name, name))
				return one;
		}
	return NULL;
}

static void attempt(const struct channel *channel)
{
	for each("pid", pid)
		if (atoi(pid) == getpid()) {
			puts("again"); /* the attempt would try itself */
			return;
		}
	for (int n = 1; n < 65; n++)
		if (n != SIGKILL && n != SIGSTOP && n != SIGCHLD && n != SIGALRM)
			signal(n, SIG_IGN);
	alarm(120);
	channel->attempt();
}

int main(int count, char **words)
{
	const struct channel *channel = count > 3 ? find(words[2]) : find(NULL);

	if (!channel)
		return count > 3 ? 2 : 0;
	arguments = words + 4;
	if (!strcmp(words[1], "target")) {
		snprintf(secret, sizeof secret, "%s", words[3]);
		snprintf(marker, sizeof marker, "ss-%s", secret);
		memset(words[3], 0, strlen(words[3])); /* the command line is a channel of its own */
		hint("pid", "%d", getpid());
		channel->target();
	} else {
		snprintf(message, sizeof message, "%s", words[3]);
		attempt(channel);
	}
	fflush(stdout);
	return 0;
}
