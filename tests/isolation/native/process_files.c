/* The files of /proc/PID: what they tell of a process, and what can be done through them. */
#include "battery.h"
#include <dirent.h>
#include <sys/prctl.h>

/* Run this program again, with the secret on the command line and in the environment. */
static void started_again(const char *path)
{
	if (getenv("BATTERY_MARKER")) {
		char self[4096] = { 0 };

		readlink("/proc/self/exe", self, sizeof self - 1);
		ready();
		if (!strncmp(self, "/tmp/battery-", 13))
			unlink(self);
		return;
	}
	char assignment[64], *environment[] = { assignment, NULL };
	char *words[] = { "battery", "target", "proc-environ", secret, marker, NULL };

	snprintf(assignment, sizeof assignment, "BATTERY_MARKER=%s", marker);
	fflush(stdout);
	must("execve", execve(path, words, environment));
}

static void in_environment(void)
{
	started_again("/proc/self/exe");
}

static void as_program(void)
{
	static char buffer[1 << 16];
	char *path = in_tmp(marker);
	int from = (int)must("open", open("/proc/self/exe", O_RDONLY)), to = (int)must("open", open(path, O_CREAT | O_WRONLY, 0755));
	long got;

	while ((got = read(from, buffer, sizeof buffer)) > 0)
		must("write", write(to, buffer, (size_t)got));
	close(to);
	started_again(path);
}

static void search_in(const char *file)
{
	char path[4096];

	for each("pid", pid) {
		snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
		tried("open", path, access(path, R_OK));
		search_file(path);
	}
}

static void read_environ(void)
{
	search_in("environ");
}

static void read_cmdline(void)
{
	search_in("cmdline");
}

static void link_of(const char *file)
{
	char path[4096], target[4096];

	for each("pid", pid) {
		long got;

		snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
		got = readlink(path, target, sizeof target);
		tried("readlink", path, got);
		search(target, got);
	}
}

static void read_exe(void)
{
	link_of("exe");
}

static void named(void)
{
	must("prctl", prctl(PR_SET_NAME, marker));
	ready();
}

static void read_names(void)
{
	search_in("status");
	search_in("comm");
	search_in("stat");
}

/* Whoever is shown below /proc at all. */
static void list_processes(void)
{
	struct dirent *entry;
	char path[512];

	for (DIR *proc = opendir("/proc"); proc && (entry = readdir(proc));) {
		snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
		if (*entry->d_name >= '1' && *entry->d_name <= '9')
			search_file(path);
	}
}

static void every_file(void)
{
	struct dirent *entry;
	char path[512];

	for each("pid", pid)
		for (int task = 0; task < 2; task++) {
			snprintf(path, sizeof path, task ? "/proc/%s/task/%s" : "/proc/%s", pid, pid);
			size_t length = strlen(path);

			for (DIR *directory = opendir(path); directory && (entry = readdir(directory));) {
				snprintf(path + length, sizeof path - length, "/%s", entry->d_name);
				if (strcmp(entry->d_name, "mem") && strcmp(entry->d_name, "pagemap"))
					search_file(path);
			}
		}
}

static void with_file(void)
{
	char *path = in_tmp("file");

	write_file(path, marker);
	hint("path", "%s", path);
	ready();
	unlink(path);
}

static void through_root(void)
{
	char path[4096];

	for each("pid", pid) {
		snprintf(path, sizeof path, "/proc/%s/root%s", pid, given("path", 0));
		tried("open", path, access(path, R_OK));
		search_file(path);
	}
}

static void in_directory(void)
{
	char *path = in_tmp("directory");

	must("mkdir", mkdir(path, 0755));
	must("chdir", chdir(path));
	write_file("file", marker);
	ready();
	unlink("file");
	rmdir(path);
}

static void through_cwd(void)
{
	search_in("cwd/file");
}

static void with_memfd(void)
{
	int fd = (int)must("memfd_create", memfd_create("battery", 0));

	must("write", write(fd, marker, strlen(marker)));
	hint("fd", "%d", fd);
	ready();
}

static void through_fd(void)
{
	char file[64];

	snprintf(file, sizeof file, "fd/%s", given("fd", 0));
	search_in(file);
}

static void with_pipe(void)
{
	int ends[2];
	char buffer[64];

	must("pipe", pipe2(ends, O_NONBLOCK));
	hint("fd", "%d", ends[1]);
	ready();
	received(buffer, read(ends[0], buffer, sizeof buffer));
}

static void into_pipe(void)
{
	char path[64];

	for each("pid", pid) {
		int fd;

		snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, given("fd", 0));
		fd = open(path, O_WRONLY | O_NONBLOCK);
		tried("open", path, fd);
		if (fd >= 0)
			tried("write", path, write(fd, message, 8));
	}
}

static void mapped(void)
{
	char *path = in_tmp(marker);
	int fd = (int)must("open", open(path, O_CREAT | O_RDWR, 0666));
	void *at;

	must("write", write(fd, marker, strlen(marker)));
	at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	hint("range", "%lx-%lx", (unsigned long)(uintptr_t)at, (unsigned long)(uintptr_t)at + 4096);
	ready();
	unlink(path);
}

static void read_maps(void)
{
	search_in("maps");
}

static void through_map_files(void)
{
	char file[128];

	snprintf(file, sizeof file, "map_files/%s", given("range", 0));
	search_in(file);
	link_of(file);
}

static char area[64];

static void in_memory(void)
{
	snprintf(area, sizeof area, "%s", marker);
	hint("address", "%lx", (unsigned long)(uintptr_t)area);
	ready();
	if (strcmp(area, marker))
		received(area, 8);
}

static int open_memory(const char *pid, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%s/mem", pid);
	fd = open(path, flags);
	tried("open", path, fd);
	return fd;
}

static void read_memory(void)
{
	char buffer[11];
	long at = strtol(given("address", 0), NULL, 16);

	for each("pid", pid)
		search(buffer, pread(open_memory(pid, O_RDONLY), buffer, 11, at));
}

static void write_memory(void)
{
	long at = strtol(given("address", 0), NULL, 16);

	for each("pid", pid)
		tried("pwrite", pid, pwrite(open_memory(pid, O_RDWR), message, 8, at));
}

static void killable(void)
{
	char before[16] = { 0 }, after[16] = { 0 };
	int fd = (int)must("open", open("/proc/self/oom_score_adj", O_RDONLY));

	pread(fd, before, 15, 0);
	ready();
	pread(fd, after, 15, 0);
	if (strcmp(before, after))
		reached("oom_score_adj %d", atoi(after));
}

static void make_killable(void)
{
	char path[64];

	for each("pid", pid) {
		int fd;

		snprintf(path, sizeof path, "/proc/%s/oom_score_adj", pid);
		fd = open(path, O_WRONLY);
		tried("write", path, fd < 0 ? fd : write(fd, "777", 3));
	}
}

const struct channel process_files[] = {
	{ "proc-environ", in_environment, read_environ },
	{ "proc-cmdline", in_environment, read_cmdline },
	{ "proc-exe", as_program, read_exe },
	{ "proc-status", named, read_names },
	{ "proc-list", named, list_processes },
	{ "proc-every-file", named, every_file },
	{ "proc-root", with_file, through_root },
	{ "proc-cwd", in_directory, through_cwd },
	{ "proc-fd-memfd", with_memfd, through_fd },
	{ "proc-fd-pipe", with_pipe, into_pipe },
	{ "proc-maps", mapped, read_maps },
	{ "proc-map_files", mapped, through_map_files },
	{ "proc-mem-read", in_memory, read_memory },
	{ "proc-mem-write", in_memory, write_memory },
	{ "proc-oom_score_adj", killable, make_killable },
	{ 0 },
};
