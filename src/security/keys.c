/*
 * keys.c: create_key(), rotate_key() and revoke_key(). A key for signing is
 * shown once, to whoever made it; one for sealing never.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/keyring.h"
#include "security/secret.h"
#include "security/security.h"

#define OVERLAP_DEFAULT		USECS_PER_DAY

PG_FUNCTION_INFO_V1(jobq_sql_create_key);
PG_FUNCTION_INFO_V1(jobq_sql_rotate_key);
PG_FUNCTION_INFO_V1(jobq_sql_revoke_key);

static char *
read_name(FunctionCallInfo fcinfo)
{
	jobq_arg_required(fcinfo, 0, "name");
	return jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "name");
}

static JobqKeyPurpose
read_purpose(FunctionCallInfo fcinfo)
{
	char	   *word;

	jobq_arg_required(fcinfo, 1, "purpose");
	word = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(word, jobq_key_purpose_word(JOBQ_KEY_SIGN)) == 0)
		return JOBQ_KEY_SIGN;
	if (strcmp(word, jobq_key_purpose_word(JOBQ_KEY_SEAL)) == 0)
		return JOBQ_KEY_SEAL;
	jobq_bad_argument("purpose", "Valid are: sign, seal.");
}

/* Whoever manages a queue may make keys for it. */
static void
require_manager(void)
{
	JobqQueue  *queues;
	int			n;

	if (jobq_is_admin(GetUserId()))
		return;
	n = jobq_queue_list(&queues);
	for (int i = 0; i < n; i++)
	{
		if (queues[i].my_privileges & JOBQ_PRIV_MANAGE)
			return;
	}
	jobq_audit_refusal(NULL, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "manages no queue");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to make keys"),
			 errdetail("Role \"%s\" manages no queue.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("The owner of a queue can give the privilege \"manage\" with jobq.grant_queue().")));
}

/*
 * The versions of a key that the caller may change, under the lock. To others
 * it is as if there were none.
 */
static int
read_mine(const char *name, JobqCryptoRow **rows)
{
	int			n;

	jobq_queue_lock();
	n = jobq_crypto_read(name, rows);
	if (n == 0 || (!has_privs_of_role(GetUserId(), (*rows)[0].owner) &&
				   !jobq_is_admin(GetUserId())))
	{
		/* either way, so that the time it takes does not tell */
		if (!jobq_is_admin(GetUserId()))
			jobq_audit_refusal(NULL, 0, 0, ERRCODE_JOBQ_KEY_REFUSED,
							   n > 0 ? "may not change another role's key" :
							   "there is no key of that name");
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_KEY_REFUSED),
				 errmsg("key \"%s\" does not exist", name),
				 errdetail("There is no key of this name that role \"%s\" may change.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Make it with jobq.create_key(), or SET ROLE to its owner.")));
	}
	return n;
}

static text *
in_hex(const uint8 *bytes)
{
	char		hex[JOBQ_KEY_LEN * 2 + 1];
	text	   *result;

	for (int i = 0; i < JOBQ_KEY_LEN; i++)
		snprintf(&hex[i * 2], 3, "%02x", bytes[i]);
	result = cstring_to_text(hex);
	explicit_bzero(hex, sizeof(hex));
	return result;
}

/* Make one more version; what create_key() and rotate_key() return. */
static text *
add_version(JobqCryptoRow *row)
{
	uint8		bytes[JOBQ_KEY_LEN];
	text	   *result;

	row->secret_version = jobq_secret_version();
	if (!pg_strong_random(row->salt, JOBQ_SALT_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a random number"),
				 errdetail("The host has no source of random numbers at the moment."),
				 errhint("Try again.")));
	jobq_keyring_derive(row, bytes);
	jobq_keyring_check_value(bytes, row->check);
	jobq_crypto_insert(row);
	if (row->purpose == JOBQ_KEY_SIGN)
		result = in_hex(bytes);
	else
		result = cstring_to_text(psprintf("%s:%d", row->name, row->version));
	explicit_bzero(bytes, sizeof(bytes));
	return result;
}

static void
audit(FunctionCallInfo fcinfo, const char *call, const JobqCryptoRow *row)
{
	jobq_audit_act_with(fcinfo, call, 0, 0,
						psprintf("key \"%s\", version %d", row->name,
								 row->version));
}

/* create_key(name text, purpose text) → text */
Datum
jobq_sql_create_key(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqCryptoRow row = {.version = 1};
	JobqCryptoRow *existing;
	char	   *name;
	text	   *made;

	jobq_begin_write("jobq.create_key()", &session);
	jobq_xact_steered(&session);
	require_manager();
	name = read_name(fcinfo);
	row.purpose = read_purpose(fcinfo);
	row.owner = GetUserId();
	strlcpy(row.name, name, sizeof(row.name));
	jobq_queue_lock();
	if (jobq_crypto_read(name, &existing) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_DUPLICATE),
				 errmsg("key \"%s\" already exists", name),
				 errdetail("A name stands for one key in a database, whoever owns it, also once it was revoked."),
				 errhint("Choose another name, or make a new version with jobq.rotate_key().")));
	made = add_version(&row);
	audit(fcinfo, "jobq.create_key()", &row);
	PG_RETURN_TEXT_P(made);
}

/* How long former versions are good: only signatures become invalid. */
static int64
read_overlap(FunctionCallInfo fcinfo, JobqKeyPurpose purpose)
{
	if (PG_ARGISNULL(1))
		return OVERLAP_DEFAULT;
	if (purpose == JOBQ_KEY_SEAL)
		jobq_bad_argument("overlap",
						  "It is for keys that sign; what a key has sealed can be opened until the key is revoked.");
	return jobq_arg_interval(PG_GETARG_INTERVAL_P(1), "overlap", 0,
							 JOBQ_DELAY_MAX);
}

/* rotate_key(name text, overlap interval) → text */
Datum
jobq_sql_rotate_key(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqCryptoRow *rows;
	JobqCryptoRow row;
	int64		overlap;
	text	   *made;
	int			n;

	jobq_begin_write("jobq.rotate_key()", &session);
	jobq_xact_steered(&session);
	n = read_mine(read_name(fcinfo), &rows);
	row = rows[n - 1];
	if (row.revoked)
		(void) jobq_keyring_get(row.purpose, row.name, JOBQ_KEY_NEWEST);
	overlap = read_overlap(fcinfo, row.purpose);
	row.version++;
	row.owner = rows[0].owner;
	if (row.purpose == JOBQ_KEY_SIGN)
		jobq_crypto_retire(row.name, row.version,
						   GetCurrentTimestamp() + overlap);
	made = add_version(&row);
	audit(fcinfo, "jobq.rotate_key()", &row);
	PG_RETURN_TEXT_P(made);
}

/* revoke_key(name text) → void */
Datum
jobq_sql_revoke_key(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqCryptoRow *rows;
	char	   *name;
	int			n;

	jobq_begin_write("jobq.revoke_key()", &session);
	jobq_xact_steered(&session);
	name = read_name(fcinfo);
	n = read_mine(name, &rows);
	jobq_crypto_revoke(name, n);
	audit(fcinfo, "jobq.revoke_key()", &rows[n - 1]);
	PG_RETURN_VOID();
}
