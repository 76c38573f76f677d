/*
 * What goes through a volume that two containers have mounted: contents, names, attributes, room, links.
 *
 * `OURS` is there already, made by the volume's owner, for all to read and write: an end that may make nothing itself
 * uses that. Each end says `reached` only for what it has seen of the other. Locks, watches, sockets and programs in a
 * volume are in volume_objects.c.
 */
#include "battery.h"
#include "volumes.h"
#include <dirent.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#define ROOM (8 << 20)

char *in_volume(const char *name)
{
	static char path[128];

	snprintf(path, sizeof path, "%s/battery-%s-%s", access(VOLUME, F_OK) ? "/tmp" : VOLUME, name, secret);
	return path;
}

int ours(void)
{
	int fd = open(OURS, O_RDWR | O_CLOEXEC);

	return fd < 0 ? (int)must("open", open(OURS, O_RDONLY | O_CLOEXEC)) : fd;
}

int writable(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

static void with_new_file(unsigned mode)
{
	char *path = in_volume("file");

	write_file(path, marker);
	must("chmod", chmod(path, mode));
	hint("path", "%s", path);
	ready();
	unlink(path);
}

static void has_file_for_all(void)
{
	with_new_file(0644);
}

static void has_own_file(void)
{
	with_new_file(0600);
}

static void read_given(void)
{
	tried("open", "path", open(given("path", 0), O_RDONLY));
	search_file(given("path", 0));
}

static void has_name(void)
{
	char path[64];

	snprintf(path, sizeof path, VOLUME "/%s", marker);
	must("mkdir", mkdir(path, 0700));
	ready();
	rmdir(path);
}

static void read_names(void)
{
	DIR *directory = opendir(VOLUME);
	struct dirent *one;

	while (directory && (one = readdir(directory)))
		search(one->d_name, (long)strlen(one->d_name));
}

static void is_written(void)
{
	int fd = ours();
	char text[16];

	ready();
	received(text, pread(fd, text, 8, 0));
}

static void write_ours(void)
{
	tried("write", OURS, pwrite(ours(), message, 8, 0));
}

/* The second page of OURS. */
static char *mapped(int fd)
{
	int protection = PROT_READ | (writable(fd) ? PROT_WRITE : 0);
	char *page = mmap(NULL, 4096, protection, MAP_SHARED, fd, 4096);

	must("mmap", page == MAP_FAILED ? -1 : 0);
	return page;
}

static void maps(void)
{
	int fd = ours();
	char *page = mapped(fd);

	if (writable(fd))
		memcpy(page + 2048, marker, sizeof "ss-" + 8);
	ready();
	received(page, 8);
}

static void map_too(void)
{
	int fd = ours();
	char *page = mapped(fd);

	search(page + 2048, 11);
	tried("write", OURS, writable(fd) ? 0 : -1);
	if (writable(fd))
		memcpy(page, message, 8);
	held();
}

static void has_attribute(void)
{
	int fd = ours();
	char text[16];

	fsetxattr(fd, "user.secret", marker, strlen(marker), 0);
	ready();
	received(text, fgetxattr(fd, "user.message", text, sizeof text));
}

static void set_attribute(void)
{
	int fd = ours();
	char text[16];

	search(text, fgetxattr(fd, "user.secret", text, sizeof text));
	tried("fsetxattr", OURS, fsetxattr(fd, "user.message", message, 8, 0));
}

static void old_access(int fd)
{
	const struct timespec times[] = { { .tv_sec = 1 }, { .tv_nsec = UTIME_OMIT } };

	tried("futimens", OURS, futimens(fd, times));
}

static void notes_access(void)
{
	int fd = ours();
	struct stat before, after;

	old_access(fd);
	must("fstat", fstat(fd, &before));
	ready();
	must("fstat", fstat(fd, &after));
	if (before.st_atim.tv_sec != after.st_atim.tv_sec || before.st_atim.tv_nsec != after.st_atim.tv_nsec)
		reached("another time of the last access");
}

static void read_ours(void)
{
	int fd = ours();
	char byte;

	old_access(fd);
	tried("read", OURS, read(fd, &byte, 1));
}

static void counts_links(void)
{
	int fd = ours();
	struct stat before, after;

	must("fstat", fstat(fd, &before));
	ready();
	must("fstat", fstat(fd, &after));
	if (after.st_nlink != before.st_nlink)
		reached("another number of links");
}

static void add_link(void)
{
	char path[64];

	snprintf(path, sizeof path, OURS "-%s", message);
	tried("link", path, link(OURS, path));
	held();
	unlink(path);
}

static void has_file_to_lose(void)
{
	char *path = in_volume("file");
	struct stat now;
	int fd;

	write_file(path, marker);
	fd = (int)must("open", open(path, O_RDONLY));
	hint("path", "%s", path);
	ready();
	must("fstat", fstat(fd, &now));
	if (now.st_nlink == 0)
		reached("the file is gone");
	unlink(path);
}

static void remove_given(void)
{
	tried("unlink", "path", unlink(given("path", 0)));
}

static long long room(void)
{
	struct statvfs now;

	must("statvfs", statvfs(VOLUME, &now));
	return (long long)now.f_bfree * (long long)now.f_frsize;
}

static void take_room(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	tried("posix_fallocate", path, fd < 0 ? fd : fallocate(fd, 0, 0, ROOM));
	close(fd);
}

static void takes_room(void)
{
	char *path = in_volume("room");
	long long before;

	take_room(path);
	before = room();
	ready();
	if (room() <= before - ROOM / 2)
		reached("less room");
	unlink(path);
}

static void take_and_see_room(void)
{
	long long before;
	char path[64];

	snprintf(path, sizeof path, VOLUME "/room-%s", message);
	take_room(path);
	before = room();
	held();
	if (room() >= before + ROOM / 2)
		reached("room is given back");
	unlink(path);
}

static void has_file_outside(void)
{
	char path[64];

	snprintf(path, sizeof path, "/battery-%s", secret);
	write_file(path, marker);
	hint("path", "%s", path);
	ready();
	unlink(path);
}

/* From the volume upwards, as far as it goes. */
static void climb(void)
{
	static const char up[] = "../../../../../../../../../../../../../../../../";
	int at = (int)must("open", open(VOLUME, O_PATH | O_DIRECTORY));
	char path[128], text[64];

	for (int steps = 0; steps <= 16; steps++) {
		int fd;

		snprintf(path, sizeof path, "%.*s%s", 3 * steps, up, given("path", 0) + 1);
		fd = openat(at, path, O_RDONLY);
		tried("openat", path, fd);
		if (fd >= 0)
			search(text, read(fd, text, sizeof text));
	}
}

static int resident(char *pages, int count)
{
	unsigned char seen[16];
	int found = 0;

	must("mincore", mincore(pages, (size_t)count * 4096, seen));
	for (int i = 0; i < count; i++)
		found += seen[i] & 1;
	return found;
}

static void is_not_cached(void)
{
	static char zeros[16 * 4096];
	char *path = in_volume("cached"), *pages;
	int fd = (int)must("open", open(path, O_RDWR | O_CREAT, 0644));

	must("write", write(fd, zeros, sizeof zeros));
	must("fsync", fsync(fd));
	pages = mmap(NULL, sizeof zeros, PROT_READ, MAP_SHARED, fd, 0);
	for (int i = 0; i < 100 && resident(pages, 16); i++)
		must("posix_fadvise", -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	errno = EBUSY;
	must("posix_fadvise", -resident(pages, 16));
	hint("path", "%s", path);
	ready();
	if (resident(pages, 16))
		reached("the file was read");
	unlink(path);
}

const struct channel volume_files[] = {
	{ "volume-file", has_file_for_all, read_given },
	{ "volume-file-of-owner", has_own_file, read_given },
	{ "volume-names", has_name, read_names },
	{ "volume-write", is_written, write_ours },
	{ "volume-mmap", maps, map_too },
	{ "volume-xattr", has_attribute, set_attribute },
	{ "volume-atime", notes_access, read_ours },
	{ "volume-hard-link", counts_links, add_link },
	{ "volume-unlink", has_file_to_lose, remove_given },
	{ "volume-room", takes_room, take_and_see_room },
	{ "volume-dot-dot", has_file_outside, climb },
	{ "volume-page-cache", is_not_cached, read_given },
	{ 0 },
};
