/* System V and POSIX queues, semaphores and shared memory, and futexes on shared pages. */
#include "battery.h"
#include <limits.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>

struct letter {
	long type;
	char text[16];
};

static int key(void)
{
	return (int)(number(secret) & 0x7ffffffe) | 1;
}

static int hinted(const char *name)
{
	return atoi(given(name, 0));
}

static void has_queue(void)
{
	struct letter got;
	int queue = (int)must("msgget", msgget(key(), IPC_CREAT | 0666));

	hint("key", "%d", key());
	hint("id", "%d", queue);
	ready();
	received(got.text, msgrcv(queue, &got, 16, 0, IPC_NOWAIT));
	msgctl(queue, IPC_RMID, NULL);
}

static void send_letter(int queue)
{
	struct letter sent = { .type = 1 };

	memcpy(sent.text, message, 8);
	tried("msgsnd", "queue", msgsnd(queue, &sent, 16, IPC_NOWAIT));
}

static void to_queue_by_key(void)
{
	send_letter(msgget(hinted("key"), 0));
}

static void to_queue_by_id(void)
{
	send_letter(hinted("id"));
}

static void has_memory(void)
{
	int id = (int)must("shmget", shmget(key(), 4096, IPC_CREAT | 0666));
	char *at = shmat(id, NULL, 0);

	memcpy(at, marker, 12);
	hint("key", "%d", key());
	hint("id", "%d", id);
	ready();
	shmctl(id, IPC_RMID, NULL);
}

static void read_memory(int id)
{
	void *at = shmat(id, NULL, SHM_RDONLY);

	tried("shmat", "memory", at == (void *)-1 ? -1 : 0);
	if (at != (void *)-1)
		search(at, 12);
}

static void memory_by_key(void)
{
	read_memory(shmget(hinted("key"), 0, 0));
}

static void memory_by_id(void)
{
	read_memory(hinted("id"));
}

static void has_semaphore(void)
{
	int id = (int)must("semget", semget(key(), 1, IPC_CREAT | 0666));

	hint("key", "%d", key());
	hint("id", "%d", id);
	ready();
	if (semctl(id, 0, GETVAL))
		reached("value %d", semctl(id, 0, GETVAL));
	semctl(id, 0, IPC_RMID);
}

static void raise_semaphore(int id)
{
	struct sembuf up = { 0, 5, IPC_NOWAIT };

	tried("semop", "semaphore", semop(id, &up, 1));
}

static void semaphore_by_key(void)
{
	raise_semaphore(semget(hinted("key"), 0, 0));
}

static void semaphore_by_id(void)
{
	raise_semaphore(hinted("id"));
}

static void has_posix_queue(void)
{
	struct mq_attr attributes = { .mq_maxmsg = 2, .mq_msgsize = 64 };
	char name[32], text[64];
	mqd_t queue;

	snprintf(name, sizeof name, "/%s", marker);
	queue = (mqd_t)must("mq_open", mq_open(name, O_CREAT | O_RDWR | O_NONBLOCK, 0666, &attributes));
	hint("name", "%s", name);
	ready();
	received(text, mq_receive(queue, text, sizeof text, NULL));
	mq_unlink(name);
}

static void to_posix_queue(void)
{
	mqd_t queue = mq_open(given("name", 0), O_WRONLY | O_NONBLOCK);

	tried("mq_send", given("name", 0), queue < 0 ? queue : mq_send(queue, message, 8, 0));
}

static int shared_file(char **path)
{
	static char name[64];
	int fd;

	snprintf(name, sizeof name, "/dev/shm/%s", marker);
	fd = (int)must("open", open(name, O_CREAT | O_RDWR, 0666));
	must("ftruncate", ftruncate(fd, 4096));
	hint("path", "%s", name);
	*path = name;
	return fd;
}

static void has_posix_memory(void)
{
	char *path;

	must("write", write(shared_file(&path), marker, 11));
	ready();
	unlink(path);
}

static void read_file(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		tried("open", path, access(path, R_OK));
		search_file(path);
	}
}

static void waits_on_futex(void)
{
	char *path;
	uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared_file(&path), 0);
	int status = 0;

	fflush(stdout);
	pid_t child = fork();
	if (child == 0)
		_exit(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 7 : 8);
	hint("child", "%d", child);
	ready();
	for (int i = 0; i < 200 && waitpid(child, &status, WNOHANG) == 0 && word[1]; i++)
		usleep(10000);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
		reached("woken");
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	unlink(path);
}

static void wake(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		int fd = open(path, O_RDWR);
		uint32_t *word = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		long woken = 0;

		tried("open", path, fd);
		if (word == MAP_FAILED)
			continue;
		for (int n = 0; n < 2000 && woken <= 0; n++, usleep(1000))
			woken = syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
		word[1] = 1; /* it is on its way to its end */
		return;
	}
}

const struct channel ipc[] = {
	{ "sysv-queue-by-key", has_queue, to_queue_by_key },
	{ "sysv-queue-by-id", has_queue, to_queue_by_id },
	{ "sysv-memory-by-key", has_memory, memory_by_key },
	{ "sysv-memory-by-id", has_memory, memory_by_id },
	{ "sysv-semaphore-by-key", has_semaphore, semaphore_by_key },
	{ "sysv-semaphore-by-id", has_semaphore, semaphore_by_id },
	{ "posix-queue", has_posix_queue, to_posix_queue },
	{ "posix-memory", has_posix_memory, read_file },
	{ "futex", waits_on_futex, wake },
	{ 0 },
};
