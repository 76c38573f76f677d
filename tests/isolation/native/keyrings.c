/* Keys: in the keyrings of a user, a session, the persistent ones, by their serial numbers, and in listings. */
#include "battery.h"
#include <linux/keyctl.h>

#define FOR_EVERYBODY 0x3f3f3f3f
#define FOR_ITS_USER 0x3f3f0000

static long add(const char *name, const char *text, long ring)
{
	return syscall(SYS_add_key, "user", name, text, strlen(text), ring);
}

static long keyctl(int operation, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	return syscall(SYS_keyctl, operation, a, b, c, d);
}

/* Who has not the ring among its own may not change a key in it. */
static void possess(long ring)
{
	keyctl(KEYCTL_LINK, (unsigned long)ring, (unsigned long)KEY_SPEC_PROCESS_KEYRING, 0, 0);
}

static void has_key(long ring)
{
	long key = must("add_key", add("battery", marker, ring));

	possess(ring);
	must("KEYCTL_SETPERM", keyctl(KEYCTL_SETPERM, (unsigned long)key, FOR_ITS_USER, 0, 0));
	hint("serial", "%ld", key);
	ready();
	keyctl(KEYCTL_UNLINK, (unsigned long)key, (unsigned long)ring, 0, 0);
}

static void read_key(const char *how, long key)
{
	char text[64];

	tried("find", how, key);
	if (key < 0)
		return;
	long got = keyctl(KEYCTL_READ, (unsigned long)key, (uintptr_t)text, sizeof text, 0);
	tried("KEYCTL_READ", how, got);
	search(text, got);
}

static void find_key(long ring)
{
	read_key("KEYCTL_SEARCH", keyctl(KEYCTL_SEARCH, (unsigned long)ring, (uintptr_t)"user", (uintptr_t)"battery", 0));
}

static void in_user(void)
{
	has_key(KEY_SPEC_USER_KEYRING);
}

static void from_user(void)
{
	find_key(KEY_SPEC_USER_KEYRING);
}

static void in_user_session(void)
{
	has_key(KEY_SPEC_USER_SESSION_KEYRING);
}

static void from_user_session(void)
{
	find_key(KEY_SPEC_USER_SESSION_KEYRING);
}

static void join_session(void)
{
	long ring = must("KEYCTL_JOIN_SESSION_KEYRING", keyctl(KEYCTL_JOIN_SESSION_KEYRING, (uintptr_t)"battery-session", 0, 0, 0));

	keyctl(KEYCTL_SETPERM, (unsigned long)ring, FOR_ITS_USER, 0, 0);
}

static void in_named_session(void)
{
	join_session();
	has_key(KEY_SPEC_SESSION_KEYRING);
}

static void from_named_session(void)
{
	join_session();
	find_key(KEY_SPEC_SESSION_KEYRING);
}

static long persistent(void)
{
	return must("KEYCTL_GET_PERSISTENT", keyctl(KEYCTL_GET_PERSISTENT, (unsigned long)-1, (unsigned long)KEY_SPEC_PROCESS_KEYRING, 0, 0));
}

static void in_persistent(void)
{
	has_key(persistent());
}

static void from_persistent(void)
{
	find_key(persistent());
}

static void by_serial(void)
{
	read_key("serial", atol(given("serial", 0)));
}

/* Both want it: the target opens its key to everybody as far as it may. */
static void open_to_all(void)
{
	long key = must("add_key", add("battery", marker, KEY_SPEC_USER_KEYRING));

	possess(KEY_SPEC_USER_KEYRING);
	if (keyctl(KEYCTL_SETPERM, (unsigned long)key, FOR_EVERYBODY, 0, 0) < 0)
		must("KEYCTL_SETPERM", keyctl(KEYCTL_SETPERM, (unsigned long)key, FOR_ITS_USER, 0, 0));
	hint("serial", "%ld", key);
	ready();
	keyctl(KEYCTL_UNLINK, (unsigned long)key, (unsigned long)KEY_SPEC_USER_KEYRING, 0, 0);
}

static void listed(void)
{
	long key = must("add_key", add(marker, "x", KEY_SPEC_USER_KEYRING));

	keyctl(KEYCTL_SETPERM, (unsigned long)key, FOR_ITS_USER, 0, 0);
	ready();
	keyctl(KEYCTL_UNLINK, (unsigned long)key, (unsigned long)KEY_SPEC_USER_KEYRING, 0, 0);
}

static void list_keys(void)
{
	search_file("/proc/keys");
}

/* A user that has keys is a line of /proc/key-users. */
static void has_user(void)
{
	uid_t uid = 10000 + number(secret) % 50000;

	hint("secret", "uid-%u-", uid);
	must("setresuid", setresuid(uid, uid, uid));
	must("add_key", add("battery", "x", KEY_SPEC_PROCESS_KEYRING));
	ready();
}

static void list_users(void)
{
	FILE *file = fopen("/proc/key-users", "r");
	char line[256], text[32];
	unsigned uid;

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, " %u:", &uid) == 1)
			learned(text, sprintf(text, "uid-%u-", uid));
}

const struct channel keyrings[] = {
	{ "key-user", in_user, from_user },
	{ "key-user-session", in_user_session, from_user_session },
	{ "key-named-session", in_named_session, from_named_session },
	{ "key-persistent", in_persistent, from_persistent },
	{ "key-by-serial", in_user, by_serial },
	{ "key-by-serial-open-to-all", open_to_all, by_serial },
	{ "proc-keys", listed, list_keys },
	{ "proc-key-users", has_user, list_users },
	{ 0 },
};
