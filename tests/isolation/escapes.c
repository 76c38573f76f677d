/*
 * What has led out of other containers, compiled by tests/isolation/test_known_escapes.py and run inside.
 * Each line: what was tried, on what, the errno (0: it was let), or a count.
 *
 *     stalk            until /stop is there: get at each process that comes, before it has executed its program
 *     overwrite FILE   all ways to write into a program through a link of /proc, and through a pipe (dirty pipe)
 *     fsconfig         more than a page of parameters into each filesystem that still takes them as one text
 *     release-agent    cgroup hierarchies mounted in namespaces of its own, and a program named that the host runs
 *     connect          names of abstract sockets on stdin, one a line, in hex
 *     handles          files of the host by their numbers
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void told(const char *what, const char *on, long number)
{
	printf("%s\t%s\t%ld\n", what, on, number);
	fflush(stdout);
}

static long failed(long result)
{
	return result < 0 ? errno : 0;
}

/* -- stalk */

enum { PAGE = 4096, MOST_PIDS = 65536 };

static unsigned long program_at;
static char program_page[PAGE];

static int read_page(const char *pid, char *page)
{
	char path[64];
	int fd, got;

	snprintf(path, sizeof path, "/proc/%s/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = pread(fd, page, PAGE, program_at);
	close(fd);
	return got == PAGE;
}

static int can_look_at_files(const char *pid)
{
	char path[64];
	DIR *files;
	int found = 0;

	snprintf(path, sizeof path, "/proc/%s/fd", pid);
	files = opendir(path);
	for (struct dirent *file; files && (file = readdir(files));)
		found = found || atoi(file->d_name) > 2;
	if (files)
		closedir(files);
	return found;
}

/* Of a process that could be traced: whether it had not executed its own program yet. */
static int stopped_too_early(int pid, const char *link)
{
	char exe[256] = "";
	int status = 0, early = 0;

	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	if (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status))
		early = readlink(link, exe, sizeof exe - 1) <= 0 || strstr(exe, "memfd:");
	ptrace(PTRACE_DETACH, pid, 0, 0);
	return early;
}

/* Refused: it was seen before its execve. Let: its memory is the program's own, or what the service had in it. */
static void stalk(void)
{
	static char refused[MOST_PIDS], let[MOST_PIDS];
	long too_early = 0, entered = 0, caught = 0, files = 0, traced = 0;
	char page[PAGE], line[256], exe[256], link[64];
	FILE *maps = fopen("/proc/1/maps", "r");

	fgets(line, sizeof line, maps);
	fclose(maps);
	program_at = strtoul(line, NULL, 16);
	if (read_page("1", program_page) != 1)
		exit(3);
	printf("ready\n");
	fflush(stdout);
	while (access("/stop", F_OK)) {
		DIR *all = opendir("/proc");

		for (struct dirent *one; (one = readdir(all));) {
			int pid = atoi(one->d_name), got;
			ssize_t length;

			if (pid < 2 || pid >= MOST_PIDS || pid == getpid() || let[pid])
				continue;
			snprintf(link, sizeof link, "/proc/%d/exe", pid);
			length = readlink(link, exe, sizeof exe - 1);
			if (length > 0) {
				exe[length] = 0;
				caught += strstr(exe, "memfd:") != NULL;
			}
			files += can_look_at_files(one->d_name);
			got = read_page(one->d_name, page);
			if (got == 1)
				caught += !memcmp(page, program_page, PAGE);
			if (got >= 0) {
				entered += !let[pid];
				let[pid] = 1;
			} else if (errno == EACCES || errno == EPERM) {
				if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
					traced += stopped_too_early(pid, link);
					let[pid] = 1;
				} else if (!refused[pid]) {
					refused[pid] = 1;
					too_early++;
				}
			}
		}
		closedir(all);
	}
	told("refused", "before execve", too_early);
	told("let", "after execve", entered);
	told("memory", "before execve", caught);
	told("files", "before execve", files);
	told("ptrace", "before execve", traced);
}

/* -- overwrite */

static long dirty_pipe(int fd)
{
	int ends[2];
	loff_t offset = 0;
	static char filler[65536];

	if (pipe(ends) < 0)
		return -1;
	/* All its buffers get PIPE_BUF_FLAG_CAN_MERGE once. */
	fcntl(ends[1], F_SETPIPE_SZ, sizeof filler);
	write(ends[1], filler, sizeof filler);
	read(ends[0], filler, sizeof filler);
	if (splice(fd, &offset, ends[1], NULL, 1, 0) < 0)
		return -1;
	return write(ends[1], "overwritten", 11) < 0 ? -1 : 0;
}

static void overwrite(const char *path)
{
	char again[64];
	int fd = open(path, O_RDONLY | O_CLOEXEC), writing;

	told("open for reading", path, failed(fd));
	told("open for writing", path, failed(writing = open(path, O_WRONLY | O_CLOEXEC)));
	if (writing >= 0)
		told("write", path, failed(write(writing, "overwritten", 11)));
	snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
	told("open again for writing", path, failed(writing = open(again, O_RDWR | O_CLOEXEC)));
	if (writing >= 0)
		told("write again", path, failed(write(writing, "overwritten", 11)));
	told("truncate", path, failed(truncate(again, 0)));
	told("chmod", path, failed(chmod(again, 0666)));
	told("chown", path, failed(chown(again, 0, 0)));
	told("map shared for writing", path,
	     mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0);
	told("through a pipe", path, failed(dirty_pipe(fd)));
}

/* -- fsconfig */

static void overflow(const char *fstype)
{
	static char value[64];
	int context = syscall(SYS_fsopen, fstype, 0);
	long bytes = 0, result;

	if (context < 0)
		return;
	memset(value, 'A', sizeof value - 1);
	for (;;) {
		result = syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "k", value, 0);
		if (result < 0 || bytes > 4 * PAGE)
			break;
		bytes += sizeof value + 2;
	}
	told(fstype, "bytes", bytes);
	close(context);
}

static void each_filesystem(void)
{
	char line[128], name[64];
	FILE *list = fopen("/proc/filesystems", "r");

	while (fgets(line, sizeof line, list))
		if (sscanf(strrchr(line, '\t'), "%63s", name) == 1)
			overflow(name);
	fclose(list);
}

/* -- release-agent */

static void release_agent(void)
{
	char line[256], name[64], path[128], *options;
	FILE *mounts = fopen("/proc/cgroups", "r");

	told("unshare", "-", failed(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)));
	mkdir("/tmp/hierarchy", 0755);
	while (fgets(line, sizeof line, mounts)) {
		if (*line == '#' || sscanf(line, "%63s", name) != 1)
			continue;
		if (mount("none", "/tmp/hierarchy", "cgroup", 0, name) < 0) {
			told("mount", name, errno);
			continue;
		}
		told("agent", name, failed(open("/tmp/hierarchy/release_agent", O_WRONLY | O_CLOEXEC)));
		umount2("/tmp/hierarchy", MNT_DETACH);
	}
	for (DIR *own = opendir("/sys/fs/cgroup"); own;) {
		struct dirent *one = readdir(own);

		if (!one)
			break;
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/release_agent", one->d_name);
		told("own agent", one->d_name, failed(open(path, O_WRONLY | O_CLOEXEC)));
	}
}

/* -- connect */

static void connect_all(void)
{
	char hex[256];

	while (fgets(hex, sizeof hex, stdin)) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		size_t length = strcspn(hex, "\n") / 2;
		unsigned byte;

		hex[strcspn(hex, "\n")] = 0;
		for (size_t i = 0; i < length && sscanf(hex + 2 * i, "%2x", &byte) == 1; i++)
			address.sun_path[i + 1] = (char)byte;
		for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type++) {
			int fd = socket(AF_UNIX, type, 0);

			if (fd < 0)
				continue;
			told("connect", hex, failed(connect(fd, (struct sockaddr *)&address,
							    offsetof(struct sockaddr_un, sun_path) + 1 + length)));
			close(fd);
		}
	}
}

/* -- handles */

static void handles(void)
{
	struct { unsigned bytes; int type; unsigned number, generation; } handle = { .bytes = 8, .type = 1 };
	int top = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (handle.number = 1; handle.number < 4096; handle.number++) {
		int fd = syscall(SYS_open_by_handle_at, top, &handle, O_RDONLY);

		if (fd >= 0 || errno != EPERM) {
			told("opened", "by its number", handle.number);
			return;
		}
	}
	told("refused", "4095 numbers", EPERM);
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";

	if (!strcmp(what, "stalk"))
		stalk();
	else if (!strcmp(what, "overwrite") && count > 2)
		overwrite(words[2]);
	else if (!strcmp(what, "fsconfig"))
		each_filesystem();
	else if (!strcmp(what, "release-agent"))
		release_agent();
	else if (!strcmp(what, "connect"))
		connect_all();
	else if (!strcmp(what, "handles"))
		handles();
	else
		return 2;
	return 0;
}
