/*
 * keyring.c: named keys, made from the server's secret and kept as long as the
 * table of keys stays as it is. Must not show a key to anybody, nor use one
 * that was revoked, has retired or was made from another secret.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "security/audit.h"
#include "security/keyring.h"
#include "security/secret.h"
#include "security/security.h"

#define CHECK_LABEL		"jobq key check"

/* What speaks against the use of a key. */
typedef enum Refusal
{
	REFUSE_NOT,
	REFUSE_NONE,				/* there is none */
	REFUSE_PURPOSE,
	REFUSE_REVOKED,
	REFUSE_RETIRED,
	REFUSE_SECRET				/* made from another one */
} Refusal;

typedef struct KeyId
{
	char		name[JOBQ_NAME_MAX + 1];
	int32		version;
	int32		purpose;
} KeyId;

typedef struct CachedKey
{
	KeyId		id;				/* hash key */
	JobqSecretKey key;
	TimestampTz retires_at;		/* 0 = not known yet */
} CachedKey;

static MemoryContext cache_context;
static HTAB *cache;
static uint64 cache_changes;	/* jobq_catalog_changes() it is good for */
static CachedKey uncached;		/* one that could not be remembered */

static void
forget_all(void)
{
	HASH_SEQ_STATUS seq;
	CachedKey  *entry;

	explicit_bzero(&uncached, sizeof(uncached));
	if (cache == NULL)
		return;
	hash_seq_init(&seq, cache);
	while ((entry = hash_seq_search(&seq)) != NULL)
		explicit_bzero(&entry->key, sizeof(entry->key));
	cache = NULL;
	MemoryContextReset(cache_context);
}

static void
freshen(void)
{
	HASHCTL		ctl;

	if (cache != NULL && cache_changes == jobq_catalog_changes())
		return;
	forget_all();
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(TopMemoryContext, "jobq keys",
											  ALLOCSET_SMALL_SIZES);
	memset(&ctl, 0, sizeof(ctl));
	ctl.hcxt = cache_context;
	ctl.keysize = sizeof(KeyId);
	ctl.entrysize = sizeof(CachedKey);
	cache = hash_create("jobq keys", 16, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	cache_changes = jobq_catalog_changes();
}

/* The name comes last, so no two labels are the same. */
void
jobq_keyring_derive(const JobqCryptoRow *row, uint8 *bytes)
{
	StringInfoData label;

	initStringInfo(&label);
	appendStringInfo(&label, "%s|%d|", jobq_key_purpose_word(row->purpose),
					 row->version);
	for (int i = 0; i < JOBQ_SALT_LEN; i++)
		appendStringInfo(&label, "%02x", row->salt[i]);
	appendStringInfo(&label, "|%s", row->name);
	StaticAssertStmt(JOBQ_KEY_LEN == JOBQ_HMAC_LEN, "a key is an HMAC");
	jobq_secret_hmac(row->secret_version, label.data, label.len, bytes);
	pfree(label.data);
}

void
jobq_keyring_check_value(const uint8 *bytes, uint8 *check)
{
	uint8		hmac[JOBQ_KEY_LEN];

	jobq_hmac(bytes, JOBQ_KEY_LEN, CHECK_LABEL, strlen(CHECK_LABEL), hmac);
	memcpy(check, hmac, JOBQ_CHECK_LEN);
}

/* The version asked for, and whether it may be used; NULL: there is none. */
static const JobqCryptoRow *
choose(const JobqCryptoRow *rows, int n, JobqKeyPurpose purpose,
	   int32 version, Refusal *refusal)
{
	const JobqCryptoRow *row = NULL;

	for (int i = 0; i < n; i++)
	{
		if (version == JOBQ_KEY_NEWEST || rows[i].version == version)
			row = &rows[i];
	}
	if (row == NULL)
		*refusal = REFUSE_NONE;
	else if (row->purpose != purpose)
		*refusal = REFUSE_PURPOSE;
	else if (row->revoked)
		*refusal = REFUSE_REVOKED;
	else
		*refusal = REFUSE_NOT;
	return row;
}

static void
fill(const JobqCryptoRow *row, CachedKey *entry, Refusal *refusal)
{
	uint8		check[JOBQ_CHECK_LEN];

	strlcpy(entry->key.name, row->name, sizeof(entry->key.name));
	entry->key.version = row->version;
	entry->retires_at = row->retires_at;
	jobq_keyring_derive(row, entry->key.bytes);
	jobq_keyring_check_value(entry->key.bytes, check);
	if (memcmp(check, row->check, JOBQ_CHECK_LEN) == 0)
		return;
	explicit_bzero(&entry->key, sizeof(entry->key));
	*refusal = REFUSE_SECRET;
}

/*
 * Read the key. It is remembered unless the table has changed meanwhile: then
 * it is good for this call, but may not be for the next.
 */
static CachedKey *
load(const KeyId *id, Refusal *refusal)
{
	JobqCryptoRow *rows;
	int			n = jobq_crypto_read(id->name, &rows);
	const JobqCryptoRow *row = choose(rows, n, id->purpose, id->version,
									  refusal);
	CachedKey  *entry = NULL;

	if (*refusal == REFUSE_NOT)
	{
		fill(row, &uncached, refusal);
		if (*refusal == REFUSE_NOT)
			entry = &uncached;
	}
	pfree(rows);
	if (entry == NULL || cache_changes != jobq_catalog_changes())
		return entry;
	entry = hash_search(cache, id, HASH_ENTER, NULL);
	entry->key = uncached.key;
	entry->retires_at = uncached.retires_at;
	explicit_bzero(&uncached, sizeof(uncached));
	return entry;
}

/* A key that is remembered is of no use without the file either. */
static const JobqSecretKey *
find(JobqKeyPurpose purpose, const char *name, int32 version,
	 Refusal *refusal)
{
	KeyId		id;
	CachedKey  *entry;

	*refusal = REFUSE_NOT;
	memset(&id, 0, sizeof(id));
	strlcpy(id.name, name, sizeof(id.name));
	id.version = version;
	id.purpose = purpose;
	freshen();
	entry = hash_search(cache, &id, HASH_FIND, NULL);
	if (entry == NULL)
		entry = load(&id, refusal);
	else
		(void) jobq_secret_version();
	if (entry == NULL)
		return NULL;
	if (entry->retires_at != 0 && entry->retires_at <= GetCurrentTimestamp())
	{
		*refusal = REFUSE_RETIRED;
		return NULL;
	}
	return &entry->key;
}

JOBQ_NORETURN static void
raise_refused(const char *name, const char *detail, const char *hint)
{
	jobq_audit_refusal(NULL, 0, 0, ERRCODE_JOBQ_KEY_REFUSED,
					   psprintf("key \"%s\" is refused", name));
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_KEY_REFUSED),
			 errmsg("key \"%s\" is refused", name),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
	pg_unreachable();
}

JOBQ_NORETURN static void
raise_for(Refusal refusal, JobqKeyPurpose purpose, const char *name,
		  int32 version)
{
	switch (refusal)
	{
		case REFUSE_NOT:
		case REFUSE_NONE:
			break;
		case REFUSE_PURPOSE:
			raise_refused(name,
						  psprintf("Its purpose is not \"%s\".",
								   jobq_key_purpose_word(purpose)),
						  "Name another key, or make one with jobq.create_key().");
		case REFUSE_REVOKED:
			raise_refused(name, "It was revoked.",
						  "Make a key of another name with jobq.create_key() and name that one in the queue's options.");
		case REFUSE_RETIRED:
			raise_refused(name,
						  psprintf("Version %d has retired.", version),
						  "Have the work done again under the present version, or rotate keys with a longer overlap.");
		case REFUSE_SECRET:
			raise_refused(name,
						  "The server's secret is not the one that it was made from.",
						  "Put the lines that the secret file had when the key was made back into it.");
	}
	raise_refused(name,
				  version == JOBQ_KEY_NEWEST ? "There is no key of this name." :
				  psprintf("There is no version %d of it.", version),
				  "Make a key with jobq.create_key().");
}

const JobqSecretKey *
jobq_keyring_find(JobqKeyPurpose purpose, const char *name, int32 version)
{
	Refusal		refusal;
	const JobqSecretKey *key = find(purpose, name, version, &refusal);

	if (refusal == REFUSE_SECRET)
		raise_for(refusal, purpose, name, version);
	return key;
}

const JobqSecretKey *
jobq_keyring_get(JobqKeyPurpose purpose, const char *name, int32 version)
{
	Refusal		refusal;
	const JobqSecretKey *key = find(purpose, name, version, &refusal);

	if (key == NULL)
		raise_for(refusal, purpose, name, version);
	return key;
}

void
jobq_keyring_require_mine(JobqKeyPurpose purpose, const char *name)
{
	JobqCryptoRow *rows;
	int			n = jobq_crypto_read(name, &rows);

	if (n > 0 && !has_privs_of_role(GetUserId(), rows[0].owner) &&
		!jobq_is_admin(GetUserId()))
	{
		jobq_audit_refusal(NULL, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
						   "may not use another role's key");
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for key \"%s\"", name),
				 errdetail("It belongs to another role."),
				 errhint("Make a key of your own with jobq.create_key(), or ask that role or a member of jobq_admin to set the option.")));
	}
	pfree(rows);
	(void) jobq_keyring_get(purpose, name, JOBQ_KEY_NEWEST);
}
