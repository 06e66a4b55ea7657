/*
 * accesskey.c: makes and recognizes access keys, and says what the one in use
 * allows. Which one that is stands in a setting, for a transaction's end and
 * DISCARD ALL to undo; it means something only for a key and a role that this
 * process has seen presented. Must not show a key, nor keep one.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dispatch/keyuse.h"
#include "dispatch/meter.h"
#include "errors.h"
#include "security/audit.h"
#include "security/accesskey.h"
#include "security/security.h"

#define KEY_START		"jq_"
#define KEY_BYTES		32
#define DIGEST_LABEL	"access key|"

StaticAssertDecl(sizeof(KEY_START) - 1 + 2 * KEY_BYTES == JOBQ_RAW_KEY_LEN,
				 "an access key has as many characters as its parts");

/* ---- what a key looks like ---- */

static void
digest_of(int version, const char *raw, uint8 *digest)
{
	char		data[sizeof(DIGEST_LABEL) + JOBQ_RAW_KEY_LEN];

	snprintf(data, sizeof(data), DIGEST_LABEL "%s", raw);
	jobq_secret_hmac(version, data, strlen(data), digest);
	explicit_bzero(data, sizeof(data));
}

void
jobq_key_make(char raw[JOBQ_RAW_KEY_LEN + 1], JobqAccessKey *key)
{
	uint8		bytes[KEY_BYTES];

	key->secret_version = jobq_secret_version();
	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random numbers"),
				 errdetail("An access key is made of them."),
				 errhint("Try again.")));
	memcpy(raw, KEY_START, sizeof(KEY_START) - 1);
	(void) hex_encode((const char *) bytes, sizeof(bytes),
					  raw + sizeof(KEY_START) - 1);
	raw[JOBQ_RAW_KEY_LEN] = '\0';
	explicit_bzero(bytes, sizeof(bytes));
	strlcpy(key->prefix, raw, sizeof(key->prefix));
	digest_of(key->secret_version, raw, key->digest);
}

/*
 * Looked up by its digest with each secret, so that how long it takes says
 * nothing of how much of a key was right.
 */
bool
jobq_key_find(const char *raw, JobqAccessKey *key)
{
	int			versions[JOBQ_SECRETS_MAX];
	int			n = jobq_secret_versions(versions);

	if (strlen(raw) != JOBQ_RAW_KEY_LEN)
		return false;
	for (int i = 0; i < n; i++)
	{
		uint8		digest[JOBQ_HMAC_LEN];

		digest_of(versions[i], raw, digest);
		if (jobq_access_key_by_digest(digest, key) &&
			jobq_secret_same(key->digest, digest, sizeof(digest)))
			return true;
	}
	return false;
}

/* ---- is it good? ---- */

static bool
is_revoked(const JobqAccessKey *key)
{
	return key->revoked_at != DT_NOEND;
}

bool
jobq_key_is_good(const JobqAccessKey *key, TimestampTz now)
{
	return !is_revoked(key) && key->expires_at > now;
}

void
jobq_key_check(const JobqAccessKey *key, TimestampTz now)
{
	if (!jobq_key_is_good(key, now))
		jobq_audit_refusal(NULL, key->queue_id, 0, ERRCODE_JOBQ_KEY_REFUSED,
						   psprintf("access key \"%s\" is good no more",
									key->name));
	if (is_revoked(key))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_KEY_REFUSED),
				 errmsg("the access key has been revoked"),
				 errdetail("Key \"%s\" is good no more.", key->name),
				 errhint("Call jobq.use_access_key() with another key, or with NULL to go on without one.")));
	if (key->expires_at <= now)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_KEY_REFUSED),
				 errmsg("the access key has expired"),
				 errdetail("Key \"%s\" was good until %s.", key->name,
						   timestamptz_to_str(key->expires_at)),
				 errhint("Call jobq.use_access_key() with another key, or with NULL to go on without one.")));
}

/* ---- the one in use ---- */

typedef struct PresentedBy
{
	int32		key_id;
	Oid			role;
} PresentedBy;

/* A key that this process has seen, as its row was when `changes` said so. */
typedef struct Presented
{
	PresentedBy by;
	JobqAccessKey key;
	uint64		changes;		/* jobq_catalog_changes() before it was read */
	TimestampTz counted_at;		/* when its use was counted last */
} Presented;

static HTAB *presented;

/* Its entry; what it says of the row is good as long as `changes` stays. */
static Presented *
remember(const JobqAccessKey *key)
{
	PresentedBy by = {.key_id = key->key_id,.role = GetUserId()};
	Presented  *entry;
	bool		found;

	if (presented == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(PresentedBy),
			.entrysize = sizeof(Presented),.hcxt = TopMemoryContext};

		presented = hash_create("jobq access keys", 16, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(presented, &by, HASH_ENTER, &found);
	if (found && jobq_secret_same(entry->key.digest, key->digest,
								  JOBQ_HMAC_LEN))
		return entry;
	entry->key = *key;
	entry->changes = 0;
	entry->counted_at = 0;
	return entry;
}

static void
count_use(Presented *entry, int n, TimestampTz now)
{
	JobqDb	   *db = jobq_db_attach(MyDatabaseId,
									jobq_table_oid(JOBQ_TABLE_QUEUE));

	jobq_key_used(db, db->gen, entry->by.key_id, n, now);
	entry->counted_at = jobq_meter_clock(now);
}

/* PGC_SUSET: nobody but we and superusers may; it is the session's or ours. */
static void
set_in_use(int32 key_id, GucAction action)
{
	char		value[12];

	snprintf(value, sizeof(value), "%d", key_id);
	(void) set_config_option("jobq.access_key", value, PGC_SUSET,
							 PGC_S_SESSION, action, true, 0, false);
}

void
jobq_key_take(const JobqAccessKey *key, bool for_session)
{
	Presented  *entry = remember(key);

	set_in_use(key->key_id, for_session ? GUC_ACTION_SET : GUC_ACTION_LOCAL);
	count_use(entry, 1, GetCurrentTimestamp());
}

void
jobq_key_let_go(void)
{
	set_in_use(0, GUC_ACTION_SET);
}

/*
 * Read the row again when it may have changed. One with another digest is of
 * another key: its predecessor, and perhaps the whole extension, is gone.
 */
static void
refresh(Presented *entry)
{
	uint64		changes = jobq_catalog_changes();
	JobqAccessKey key;

	if (entry->changes == changes)
		return;
	if (jobq_access_key_by_id(entry->by.key_id, &key) &&
		jobq_secret_same(key.digest, entry->key.digest, JOBQ_HMAC_LEN))
		entry->key = key;
	else
		entry->key.revoked_at = DT_NOBEGIN;
	entry->changes = changes;
}

int
jobq_key_privileges(int32 queue_id)
{
	PresentedBy by = {.key_id = jobq_access_key,.role = GetUserId()};
	TimestampTz now;
	Presented  *entry;

	if (presented == NULL)
		return 0;
	entry = hash_search(presented, &by, HASH_FIND, NULL);
	if (entry == NULL || entry->key.queue_id != queue_id)
		return 0;
	refresh(entry);
	now = GetCurrentTimestamp();
	jobq_key_check(&entry->key, now);
	if (jobq_meter_clock(now) - entry->counted_at >= USECS_PER_MINUTE)
		count_use(entry, 0, now);
	return entry->key.privileges & JOBQ_PRIV_ALL;
}
