/*
 * Why execve(2) failed, in more words than its errno: ENOENT is also said of a script whose interpreter is missing,
 * ENOEXEC also of a program for another processor. Runs in the child, as the user, and reads the file again.
 */
#include "exec.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static bool is_elf(const char *head, size_t length)
{
	return length >= sizeof(Elf64_Ehdr) && !memcmp(head, ELFMAG, SELFMAG);
}

/* e_machine has the same place in both classes, and the byte order of the program. */
static unsigned machine_of(const char *head)
{
	const unsigned char *at = (const unsigned char *)head + offsetof(Elf64_Ehdr, e_machine);

	return head[EI_DATA] == ELFDATA2MSB ? at[0] * 256u + at[1] : at[1] * 256u + at[0];
}

/* `#! interpreter argument` */
static void script_interpreter(char *head)
{
	char *begin = head + 2;

	while (*begin == ' ' || *begin == '\t')
		begin++;

	begin[strcspn(begin, " \t\n")] = 0;
	put_text(STATE_INTERPRETER_TEXT, begin);
}

/* PT_INTERP of a program of this machine; others fail with ENOEXEC before that. */
static void elf_interpreter(int fd, const char *head)
{
	Elf64_Ehdr elf;
	Elf64_Phdr part;
	char text[256];
	ssize_t got;

	memcpy(&elf, head, sizeof elf);
	for (unsigned i = 0; elf.e_ident[EI_CLASS] == ELFCLASS64 && i < elf.e_phnum && i < 64; i++) {
		if (pread(fd, &part, sizeof part, (off_t)(elf.e_phoff + i * sizeof part)) != sizeof part)
			return;
		if (part.p_type != PT_INTERP)
			continue;
		got = pread(fd, text, sizeof text - 1, (off_t)part.p_offset);
		text[got > 0 ? got : 0] = 0;
		put_text(STATE_INTERPRETER_TEXT, text);
		return;
	}
}

static bool look_into(const char *path, int number)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : pread(fd, scratch, 512, 0);
	size_t length = got > 0 ? (size_t)got : 0;

	scratch[length] = 0;
	if (length > 2 && scratch[0] == '#' && scratch[1] == '!')
		script_interpreter(scratch);
	else if (number == ENOEXEC && is_elf(scratch, length))
		put(STATE_FAILED_MACHINE, machine_of(scratch) + 1);
	else if (is_elf(scratch, length))
		elf_interpreter(fd, scratch);
	return length > 0;
}

_Noreturn void explain_execve(const char *path, int number)
{
	bool there = false;

	put_text(STATE_PATH_TEXT, path);
	if (number == ENOENT || number == ENOEXEC)
		there = look_into(path, number);
	fail(STEP_EXECVE, number, number == ENOENT && !there ? NOT_FOUND : CANNOT_EXECUTE);
}
