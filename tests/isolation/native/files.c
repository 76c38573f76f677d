/* Files, FIFOs, terminals, handles of files, and the device below the root filesystem. */
#include "battery.h"
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pty.h>
#include <sys/sysmacros.h>
#include <termios.h>

static void with_file_at(const char *path)
{
	write_file(path, marker);
	hint("path", "%s", path);
	ready();
	unlink(path);
}

static void in_root(void)
{
	char path[64];

	snprintf(path, sizeof path, "/battery-%s", secret);
	with_file_at(path);
}

static void in_directory_tmp(void)
{
	with_file_at(in_tmp("file"));
}

static void in_run(void)
{
	char path[64];

	snprintf(path, sizeof path, "/run/battery-%s", secret);
	with_file_at(path);
}

static void read_file(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		tried("open", path, access(path, R_OK));
		search_file(path);
	}
}

static void has_fifo(void)
{
	char *path = in_tmp("fifo"), text[64];
	int fd;

	must("mkfifo", mkfifo(path, 0666));
	fd = (int)must("open", open(path, O_RDWR | O_NONBLOCK));
	hint("path", "%s", path);
	ready();
	received(text, read(fd, text, sizeof text));
	unlink(path);
}

static void write_to(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY);

		tried("open", path, fd);
		if (fd >= 0)
			tried("write", path, write(fd, message, 8));
	}
}

static void has_terminal(void)
{
	int master = (int)must("open", open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK)), zero = 0, number_of_it, other;
	char path[64], text[64];
	struct termios raw;

	must("TIOCSPTLCK", ioctl(master, TIOCSPTLCK, &zero));
	must("TIOCGPTN", ioctl(master, TIOCGPTN, &number_of_it));
	snprintf(path, sizeof path, "/dev/pts/%d", number_of_it);
	other = (int)must("open", open(path, O_RDWR | O_NOCTTY | O_NONBLOCK));
	cfmakeraw(memset(&raw, 0, sizeof raw));
	tcsetattr(other, TCSANOW, &raw);
	hint("path", "%s", path);
	ready();
	received(text, read(master, text, sizeof text));
	received(text, read(other, text, sizeof text));
}

static void type_into(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY);

		tried("open", path, fd);
		if (fd < 0)
			continue;
		setsid();
		ioctl(fd, TIOCSCTTY, 0);
		for (const char *byte = message; *byte; byte++)
			tried("TIOCSTI", path, ioctl(fd, TIOCSTI, byte));
	}
}

static void has_handle(void)
{
	struct { struct file_handle handle; unsigned char bytes[128]; } found = { .handle = { .handle_bytes = 128 } };
	char text[300], *path = in_tmp("file");
	int mount;

	write_file(path, marker);
	must("name_to_handle_at", name_to_handle_at(AT_FDCWD, path, &found.handle, &mount, 0));
	for (unsigned i = 0; i < found.handle.handle_bytes; i++)
		sprintf(text + 2 * i, "%02x", found.handle.f_handle[i]);
	hint("handle", "%s", text);
	hint("type", "%d", found.handle.handle_type);
	ready();
	unlink(path);
}

static void open_handle(void)
{
	struct { struct file_handle handle; unsigned char bytes[128]; } wanted = { 0 };
	static const char *const mounts[] = { "/", "/tmp", "/dev", "/run", "/dev/shm", "/proc", "/sys" };
	const char *text = given("handle", 0);
	char buffer[64];

	wanted.handle.handle_bytes = (unsigned)strlen(text) / 2;
	wanted.handle.handle_type = atoi(given("type", 0));
	for (unsigned i = 0; i < wanted.handle.handle_bytes; i++)
		sscanf(text + 2 * i, "%2hhx", &wanted.handle.f_handle[i]);
	for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
		int fd = open_by_handle_at(open(mounts[i], O_RDONLY), &wanted.handle, O_RDONLY);

		tried("open_by_handle_at", mounts[i], fd);
		if (fd >= 0)
			search(buffer, read(fd, buffer, sizeof buffer));
	}
}

/* A node of the device that the target's root is on: its filesystem could be read below all permissions. */
static void on_device(void)
{
	struct { struct fiemap map; struct fiemap_extent extent; } found = { .map = { .fm_length = ~0ull, .fm_extent_count = 1 } };
	char path[64], block[4096] = { 0 };
	struct stat root;
	int fd;

	snprintf(path, sizeof path, "/battery-%s", secret);
	memset(block, '.', sizeof block - 1);
	memcpy(block, marker, 11);
	write_file(path, block);
	fd = open(path, O_RDONLY);
	must("fsync", fsync(fd));
	must("syncfs", syncfs(fd));
	must("stat", stat(path, &root));
	ioctl(fd, FS_IOC_FIEMAP, &found); /* where no filesystem tells, the attempt does not know either */
	hint("device", "%u:%u", major(root.st_dev), minor(root.st_dev));
	hint("offset", "%llu", (unsigned long long)found.extent.fe_physical);
	ready();
	unlink(path);
}

static void read_device(void)
{
	static const char *const places[] = { "/", "/tmp", "/dev", "/dev/shm", "/run" };
	char block[4096];
	unsigned high = 0, low = 0;
	char path[64];

	sscanf(given("device", 0), "%u:%u", &high, &low);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		int fd;

		snprintf(path, sizeof path, "%s/battery-%s-device", places[i], message);
		tried("mknod", path, mknod(path, S_IFBLK | 0600, makedev(high, low)));
		fd = open(path, O_RDONLY);
		tried("open", path, fd);
		if (fd >= 0)
			search(block, pread(fd, block, sizeof block, strtoll(given("offset", 0), NULL, 10)));
		unlink(path);
		if (fd >= 0)
			return;
	}
}

const struct channel files[] = {
	{ "file-in-root", in_root, read_file },
	{ "file-in-tmp", in_directory_tmp, read_file },
	{ "file-in-run", in_run, read_file },
	{ "fifo", has_fifo, write_to },
	{ "pts-write", has_terminal, write_to },
	{ "pts-tiocsti", has_terminal, type_into },
	{ "open_by_handle_at", has_handle, open_handle },
	{ "block-device-of-root", on_device, read_device },
	{ 0 },
};
