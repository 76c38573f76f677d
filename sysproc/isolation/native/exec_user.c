/*
 * What the container says of the user: group, home and supplementary groups out of its /etc/passwd and /etc/group.
 *
 * The files are the container's, so they may be anything: only regular files are read, only so much of them, and
 * a line that makes no sense is skipped. Nothing here can hurt anybody but the container itself.
 */
#include "exec.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NO_NUMBER = 65536 };

/* The whole file, or as many whole lines as fit, ended by NUL; empty if there is no such regular file. */
static char *read_lines(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat file;
	ssize_t got, length = 0;

	if (fd >= 0 && fstat(fd, &file) == 0 && S_ISREG(file.st_mode))
		while ((got = read(fd, scratch + length, sizeof scratch - 1 - (size_t)length)) > 0)
			length += got;
	if (fd >= 0)
		close(fd);
	if (length == sizeof scratch - 1)
		while (length && scratch[length - 1] != '\n')
			length--;
	scratch[length] = 0;
	return scratch;
}

/* As much as fits. */
static void copy(char *to, const char *text, size_t bytes)
{
	size_t length = strnlen(text, bytes - 1);

	memcpy(to, text, length);
	to[length] = 0;
}

/* Cuts the next field off a line. */
static char *field(char **line, char separator)
{
	char *begin = *line, *end = strchr(begin, separator);

	*line = end ? end + 1 : begin + strlen(begin);
	if (end)
		*end = 0;
	return begin;
}

/* A user or group id of the container, 0 to 65535, or NO_NUMBER. */
static uint32_t number(const char *text)
{
	uint32_t value = 0;

	if (!*text)
		return NO_NUMBER;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || value >= NO_NUMBER)
			return NO_NUMBER;
		value = value * 10 + (uint32_t)(*text - '0');
	}
	return value < NO_NUMBER ? value : NO_NUMBER;
}

/* name:password:uid:gid:comment:home:shell */
static bool find_in_passwd(uint32_t uid, struct user *user, char *name, size_t name_bytes)
{
	char *rest = read_lines("/etc/passwd");

	while (*rest) {
		char *line = field(&rest, '\n'), *found = field(&line, ':');

		field(&line, ':');
		if (number(field(&line, ':')) != uid)
			continue;
		user->gid = number(field(&line, ':'));
		field(&line, ':');
		copy(user->home, field(&line, ':'), sizeof user->home);
		copy(name, found, name_bytes);
		return user->gid != NO_NUMBER;
	}
	return false;
}

static bool is_member(char *members, const char *name)
{
	while (*members)
		if (!strcmp(field(&members, ','), name))
			return true;
	return false;
}

/* name:password:gid:member,member,… */
static void find_groups(struct user *user, const char *name)
{
	char *rest = read_lines("/etc/group");

	while (*rest && user->group_count < sizeof user->groups / sizeof *user->groups) {
		char *line = field(&rest, '\n');
		uint32_t gid;

		field(&line, ':');
		field(&line, ':');
		gid = number(field(&line, ':'));
		if (gid != NO_NUMBER && is_member(line, name))
			user->groups[user->group_count++] = gid;
	}
}

/* As with `docker exec -u`: a group that was asked for comes alone, else the user's own ones all hold. */
void find_user(const struct spec *spec, struct user *user)
{
	char name[64] = "";
	bool known;

	memset(user, 0, sizeof *user);
	known = find_in_passwd(spec->uid, user, name, sizeof name);
	if (*user->home != '/')
		copy(user->home, "/", sizeof user->home);
	if (spec->flags & FLAG_GID)
		user->gid = spec->gid;
	else if (!known)
		user->gid = spec->uid;
	else
		find_groups(user, name);
}
