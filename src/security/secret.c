/*
 * secret.c: reads jobq.secret_file and computes with what is in it. Trusts no
 * file that others could have read or written; never shows a secret, nor the
 * file's name, which only superusers may know. Nothing else reads the file.
 */
#include "postgres.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hmac.h"
#include "storage/fd.h"

#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "security/secret.h"

#define SECRET_MIN		32		/* bytes */
#define FILE_MAX		65535	/* bytes */

#define HOW_TO_MAKE \
	"As the server's user: umask 077; echo \"1:$(openssl rand -hex 32)\" > FILE. Name the file in jobq.secret_file and reload the server."
#define HOW_TO_PROTECT \
	"Let the file belong to the server's user and run chmod 600 on it; one of root's may have mode 640."
#define HOW_TO_WRITE \
	"Each line is <version>:<at least 32 bytes of secret>, with versions from 1 on; a line that starts with # is a comment."

typedef struct Secret
{
	int			version;
	const char *text;			/* in the copy of the file */
	size_t		length;
} Secret;

/*
 * What this process has read last. Good as long as the file is the same; of
 * the state only what tells files and their versions apart is compared.
 */
static struct
{
	bool		valid;
	char		path[MAXPGPATH];
	struct stat state;
	int			n;
	Secret		secrets[JOBQ_SECRETS_MAX];
	char		file[FILE_MAX + 1];
}			cache;

static void
forget(void)
{
	explicit_bzero(&cache, sizeof(cache));
}

/* detail and hint are full sentences. */
JOBQ_NORETURN static void
refuse(const char *detail, const char *hint)
{
	forget();
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_KEY_REFUSED),
			 errmsg("the server's secret cannot be used"),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
	pg_unreachable();
}

static bool
is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
		a->st_size == b->st_size && a->st_mode == b->st_mode &&
		a->st_uid == b->st_uid &&
		a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
		a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
		a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
		a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* The rules of ssl_key_file. */
static void
check_protection(const struct stat *state)
{
	bool		roots = state->st_uid == 0;

	if (!S_ISREG(state->st_mode))
		refuse("What jobq.secret_file names is not a regular file.",
			   HOW_TO_MAKE);
	if (state->st_uid != geteuid() && state->st_uid != 0)
		refuse("The file that jobq.secret_file names belongs neither to the server's user nor to root.",
			   HOW_TO_PROTECT);
	if (state->st_mode & S_IRWXO)
		refuse("The file that jobq.secret_file names is accessible to everybody.",
			   HOW_TO_PROTECT);
	if (state->st_mode & (roots ? S_IWGRP | S_IXGRP : S_IRWXG))
		refuse("The file that jobq.secret_file names is accessible to its group.",
			   HOW_TO_PROTECT);
}

/* The whole file into the cache; returns its length. */
static size_t
read_file(void)
{
	int			fd;
	ssize_t		length = 0;
	ssize_t		got;

	/* a pipe must not stop us before it has been recognized */
	fd = OpenTransientFile(cache.path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		refuse(psprintf("The file that jobq.secret_file names cannot be opened: %s.",
						strerror(errno)), HOW_TO_MAKE);
	if (fstat(fd, &cache.state) != 0)
		refuse(psprintf("The file that jobq.secret_file names cannot be examined: %s.",
						strerror(errno)), HOW_TO_MAKE);
	check_protection(&cache.state);
	while ((got = read(fd, cache.file + length, FILE_MAX + 1 - length)) > 0)
		length += got;
	if (got < 0)
		refuse(psprintf("The file that jobq.secret_file names cannot be read: %s.",
						strerror(errno)), HOW_TO_MAKE);
	CloseTransientFile(fd);
	if (length > FILE_MAX)
		refuse(psprintf("The file that jobq.secret_file names has more than %d bytes.",
						FILE_MAX), HOW_TO_WRITE);
	cache.file[length] = '\0';
	return length;
}

static const Secret *
find(int version)
{
	for (int i = 0; i < cache.n; i++)
	{
		if (cache.secrets[i].version == version)
			return &cache.secrets[i];
	}
	return NULL;
}

/* One line of the file, without its end. */
static void
read_line(const char *line, size_t length, int number)
{
	const char *end = line + length;
	const char *at = line;
	int64		version = 0;

	while (at < end && *at >= '0' && *at <= '9' && version <= PG_INT32_MAX)
		version = version * 10 + (*at++ - '0');
	if (version < 1 || version > PG_INT32_MAX || at == end || *at != ':' ||
		memchr(line, '\0', length) != NULL)
		refuse(psprintf("Line %d of the secret file is not a version, a colon and a secret.",
						number), HOW_TO_WRITE);
	at++;
	if (end - at < SECRET_MIN)
		refuse(psprintf("The secret in line %d of the secret file has less than %d bytes.",
						number, SECRET_MIN), HOW_TO_WRITE);
	if (find((int) version) != NULL)
		refuse(psprintf("Line %d of the secret file has a version that an earlier line has, too.",
						number), HOW_TO_WRITE);
	if (cache.n == JOBQ_SECRETS_MAX)
		refuse(psprintf("The secret file has more than %d versions.",
						JOBQ_SECRETS_MAX), HOW_TO_WRITE);
	cache.secrets[cache.n].version = (int) version;
	cache.secrets[cache.n].text = at;
	cache.secrets[cache.n].length = end - at;
	cache.n++;
}

static void
read_lines(size_t length)
{
	const char *at = cache.file;
	const char *end = cache.file + length;

	for (int number = 1; at < end; number++)
	{
		const char *newline = memchr(at, '\n', end - at);
		const char *next = newline != NULL ? newline + 1 : end;
		const char *last = newline != NULL ? newline : end;

		while (last > at && (last[-1] == ' ' || last[-1] == '\t' ||
							 last[-1] == '\r'))
			last--;
		if (last > at && *at != '#')
			read_line(at, last - at, number);
		at = next;
	}
	if (cache.n == 0)
		refuse("There is no secret in the file that jobq.secret_file names.",
			   HOW_TO_MAKE);
}

/* Have the file as it is now in the cache. */
static void
load(void)
{
	struct stat state;

	if (jobq_secret_file == NULL || jobq_secret_file[0] == '\0')
		refuse("jobq.secret_file is not set.", HOW_TO_MAKE);
	if (cache.valid && strcmp(cache.path, jobq_secret_file) == 0 &&
		stat(cache.path, &state) == 0 && is_same_file(&state, &cache.state))
		return;
	forget();
	if (strlcpy(cache.path, jobq_secret_file, MAXPGPATH) >= MAXPGPATH)
		refuse("The name in jobq.secret_file is too long.", HOW_TO_MAKE);
	read_lines(read_file());
	cache.valid = true;
}

int
jobq_secret_version(void)
{
	int			newest = 0;

	load();
	for (int i = 0; i < cache.n; i++)
		newest = Max(newest, cache.secrets[i].version);
	return newest;
}

int
jobq_secret_versions(int *versions)
{
	load();
	for (int i = 0; i < cache.n; i++)
		versions[i] = cache.secrets[i].version;
	return cache.n;
}

bool
jobq_secret_same(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}

void
jobq_hmac(const void *key, size_t key_len, const void *data, size_t len,
		  uint8 *out)
{
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);
	bool		done;

	if (hmac == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	done = pg_hmac_init(hmac, key, key_len) >= 0 &&
		pg_hmac_update(hmac, data, len) >= 0 &&
		pg_hmac_final(hmac, out, JOBQ_HMAC_LEN) >= 0;
	pg_hmac_free(hmac);
	if (!done)
		elog(ERROR, "could not compute an HMAC");
}

void
jobq_secret_hmac(int version, const void *data, size_t len, uint8 *out)
{
	const Secret *secret;

	load();
	secret = find(version);
	if (secret == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_KEY_REFUSED),
				 errmsg("the server's secret cannot be used"),
				 errdetail("Version %d, which is needed here, is not in the secret file.",
						   version),
				 errhint("Put the line of that version back into the file; older versions stay for what they have made.")));
	jobq_hmac(secret->text, secret->length, data, len, out);
}
