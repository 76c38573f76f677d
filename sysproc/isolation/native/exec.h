/*
 * The supervisor of one process started by Exec: what it is told, what it publishes, and how its parts meet.
 * The same is written in sysproc/isolation/exec_spec.py and exec_state.py; tests hold the two together.
 *
 *     daemon ── spec, files, eventfds ──▶ supervisor ── clone3 ──▶ child: enters the container, execve
 *       │                                  │  ▲
 *       │   stdin, state (own half)        │  └── stdout, stderr: pipes or a terminal
 *       └──▶ WAKE ────────────────────────▶│
 *       ◀─────────────────────── NEWS ─────┘  spool files, state (own half)
 *
 * The fds, at these numbers from the start, and for a later daemon to take with pidfd_getfd(2):
 */
#ifndef SYSPROC_EXEC_H
#define SYSPROC_EXEC_H

#include "native.h"

#include <sys/types.h>

enum {
	SPEC_FD = 3,     /* a memfd with the spec below; closed once the child runs */
	STATE_FD = 4,    /* the file of the state page; its open file description is flock'ed while we live */
	STDOUT_FD = 5,   /* spool files; not opened with O_APPEND */
	STDERR_FD = 6,   /* not with a terminal */
	STDIN_FD = 7,    /* with FLAG_STDIN or a terminal */
	WAKE_FD = 8,     /* eventfds: look at the state page and at the size of the stdin file */
	NEWS_FD = 9,
	INIT_FD = 10,    /* the container's init, a pidfd */
};

/*
 * The spec. Words of 32 bits, in the byte order of the machine; then, without gaps:
 *
 *     limits × { resource, soft, hard: 64 bits each }
 *     filter × { one instruction of the seccomp filter: 8 bytes }
 *     strings, each ended by NUL: argv…, environment…, tasks…, working directory, cgroup
 *
 * tasks: the `tasks` files of version 1 hierarchies; cgroup: the directory of version 2, empty if there is none.
 */
enum spec_word {
	SPEC_MAGIC, SPEC_SIZE, SPEC_FLAGS, SPEC_UID, SPEC_GID, SPEC_HOST_UID, SPEC_WINDOW, SPEC_SPOOL_BYTES,
	SPEC_LIMITS, SPEC_FILTER, SPEC_ARGV, SPEC_ENVIRONMENT, SPEC_TASKS, SPEC_STRING_BYTES,
	SPEC_WORDS
};
enum { SPEC_MAGIC_VALUE = 0x31505853 };
enum spec_flag { FLAG_TERMINAL = 1, FLAG_STDIN = 2, FLAG_GID = 4, FLAG_DROP_OLDEST = 8 };

/*
 * The state page: a file of 4096 bytes, mapped by both sides. Slots of 64 bits, each written by one side only, so
 * that no lock is needed and kill -9 leaves nothing half done. Whoever writes pokes the other's eventfd after it.
 *
 *     PHASE_NEW ──▶ PHASE_RUNNING ──the process ended──▶ PHASE_ENDED ──its output is in the files──▶ PHASE_DONE
 *         └───────────────────── it could not be started ───────────────────────────────────────────▶
 *
 * How it ended is there from PHASE_ENDED on, the sizes of its output from PHASE_DONE on. A page that is not at
 * PHASE_DONE and whose file nobody has locked belongs to a supervisor that was killed.
 */
enum phase { PHASE_NEW, PHASE_RUNNING, PHASE_ENDED, PHASE_DONE };
enum exit_kind { EXIT_NONE, EXIT_CODE, EXIT_SIGNAL };
enum state_slot {
	/* written by the supervisor */
	STATE_PHASE, STATE_SUPERVISOR_PID,
	STATE_PID, STATE_PID_START, STATE_PID_INSIDE,      /* of the process; start as in /proc/PID/stat */
	STATE_STARTED_NS, STATE_ENDED_NS,                  /* CLOCK_REALTIME */
	STATE_EXIT_KIND, STATE_EXIT_NUMBER,
	STATE_FAILED_STEP, STATE_FAILED_ERRNO, STATE_FAILED_MACHINE,   /* machine: e_machine + 1, 0 if not known */
	STATE_STDOUT_FREED, STATE_STDERR_FREED,            /* what is before this offset is gone; whole blocks */
	STATE_STDOUT_SIZE, STATE_STDERR_SIZE,
	STATE_STDIN_CONSUMED, STATE_STDIN_BROKEN,          /* broken: nobody will read any more */
	STATE_TROUBLE,                                     /* errno of the spool's disk; the process waits, nothing is lost */
	STATE_SIGNALS_DONE,
	/* written by the daemon */
	STATE_STDOUT_TAKEN = 64, STATE_STDERR_TAKEN,       /* readers have it: may be freed */
	STATE_STDIN_CLOSED,                                /* no more than the present size of the stdin file */
	STATE_WINDOW,                                      /* generation << 32 | rows << 16 | columns */
	STATE_SIGNALS_ASKED,                               /* how many so far */
	STATE_SIGNAL_RING,                                 /* number n, from 0: (n + 1) << 8 | signal, at n % RING */
};
enum { SIGNAL_RING = 16, STATE_BYTES = 4096, STATE_PATH_TEXT = 2048, STATE_INTERPRETER_TEXT = 3072, TEXT_BYTES = 1024 };

/* What failed before the process could begin; the errno stands beside it. */
enum step {
	STEP_NONE, STEP_SPEC, STEP_PIPES, STEP_ENTER_PIDS, STEP_CLONE, STEP_CGROUP, STEP_LIMITS, STEP_NAMESPACES,
	STEP_TERMINAL, STEP_STDIO, STEP_USER, STEP_SECCOMP, STEP_DIRECTORY, STEP_EXECVE,
};
enum { CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

/* More hierarchies of version 1 than the kernel has controllers. */
enum { MOST_TASKS = 32 };

struct limit {
	uint64_t resource, soft, hard;
};

struct spec {
	uint32_t flags, uid, gid, host_uid, window;
	uint64_t bound;
	const struct limit *limits;
	uint32_t limit_count, filter_count;
	const void *filter;
	char **argv;
	char **environment;        /* with room for one more */
	uint32_t environment_count;
	char **tasks;
	uint32_t task_count;
	int task_fds[MOST_TASKS];  /* open, in the order of tasks: the child has another root */
	const char *directory, *cgroup;
};

/* struct termios as the kernel has it; libc's is another. */
struct terminal_settings {
	uint32_t input_flags, output_flags, control_flags, local_flags;
	unsigned char line, characters[19];
};
enum { IUTF8 = 0040000, ICANON = 0000002, VEOF = 4 };

struct user {
	uint32_t gid;
	char home[256];
	size_t group_count;
	uint32_t groups[64];
};

/* What the supervisor keeps of the child, and the child's ends. -1: not there. */
struct ends {
	int stdin_ours, stdin_theirs;
	int stdout_ours, stdout_theirs;
	int stderr_ours, stderr_theirs;
	int terminal_ours, terminal_theirs;       /* sockets on which the child hands over the pty's master */
};

extern uint64_t *state;

static inline uint64_t get(unsigned slot)
{
	return __atomic_load_n(&state[slot], __ATOMIC_SEQ_CST);
}

static inline void put(unsigned slot, uint64_t value)
{
	__atomic_store_n(&state[slot], value, __ATOMIC_SEQ_CST);
}

/* Large, and not touched before it is used: the child's for files of the container, the supervisor's for stdin. */
extern char scratch[262144];

int read_spec(struct spec *spec);
int look_around(void);
int step_inside(void);
int step_outside(void);
/* In the child: no fds of ours but one, at SUPERVISOR_FD, that tells whether we live; and what it is for. */
enum { SUPERVISOR_FD = 3 };
int keep_only_supervisor(void);
void die_with_supervisor(void);
enum stat_field { STAT_START_TIME = 22, STAT_EXIT_CODE = 52 };
uint64_t stat_field(pid_t pid, enum stat_field wanted);
int open_at_host_proc(const char *path, int flags);
_Noreturn void child_main(struct spec *spec, const struct ends *ends);
_Noreturn void fail(enum step step, int number, int code);
void put_text(unsigned at, const char *text);
void find_user(const struct spec *spec, struct user *user);
_Noreturn void explain_execve(const char *path, int number);
int pump(const struct spec *spec, const struct ends *ends, int child);

#endif
