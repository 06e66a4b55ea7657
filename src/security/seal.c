/*
 * seal.c: AES-256-GCM for payloads, by OpenSSL, and what is stored of it. Must
 * never give a payload back that it could not authenticate, nor decide who may
 * see one.
 */
#include "postgres.h"

#include <openssl/evp.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "errors.h"
#include "security/audit.h"
#include "security/keyring.h"
#include "security/seal.h"

/*
 * What is stored: format, version of the key, length of its name, name, IV,
 * ciphertext, tag. The ciphertext is that of the payload's text in UTF-8.
 * Authenticated with it are all before the IV, and queue and id of the job.
 */
#define FORMAT		1
#define IV_LEN		12
#define TAG_LEN		16
#define HEAD_LEN	(1 + 4 + 1)	/* without the name */
#define BOUND_LEN	(4 + 8)		/* queue and id */
#define AAD_MAX		(HEAD_LEN + JOBQ_NAME_MAX + BOUND_LEN)

/* A stored value, taken apart. */
typedef struct Sealed
{
	int32		version;
	char		key_name[JOBQ_NAME_MAX + 1];
	const uint8 *head;
	int			head_len;		/* with the name */
	const uint8 *iv;
	const uint8 *text;
	int			text_len;
	const uint8 *tag;
} Sealed;

JOBQ_NORETURN static void
raise_damaged(int64 id)
{
	jobq_audit_refusal(NULL, 0, id, ERRCODE_JOBQ_KEY_REFUSED,
					   "the sealed payload was altered or damaged");
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_KEY_REFUSED),
			 errmsg("the payload of job " INT64_FORMAT " cannot be opened", id),
			 errdetail("It is not what was sealed for this job in this queue."),
			 errhint("Its row was altered or damaged. Cancel the job with jobq.cancel(), or restore it from a backup.")));
	pg_unreachable();
}

static int
write_head(const JobqSecretKey *key, uint8 *head)
{
	uint32		version = pg_hton32((uint32) key->version);
	size_t		name_len = strlen(key->name);

	head[0] = FORMAT;
	memcpy(&head[1], &version, 4);
	head[5] = (uint8) name_len;
	memcpy(&head[HEAD_LEN], key->name, name_len);
	return HEAD_LEN + (int) name_len;
}

/* What is authenticated; its length. */
static int
write_aad(const uint8 *head, int head_len, int32 queue_id, int64 id,
		  uint8 *aad)
{
	uint32		queue = pg_hton32((uint32) queue_id);
	uint64		job = pg_hton64((uint64) id);

	memcpy(aad, head, head_len);
	memcpy(&aad[head_len], &queue, 4);
	memcpy(&aad[head_len + 4], &job, 8);
	return head_len + BOUND_LEN;
}

/* False for what we have not written. */
static bool
take_apart(Datum value, Sealed *sealed)
{
	bytea	   *stored = DatumGetByteaPP(value);
	const uint8 *bytes = (const uint8 *) VARDATA_ANY(stored);
	int			length = (int) VARSIZE_ANY_EXHDR(stored);
	uint32		version;
	int			name_len;

	if (length < HEAD_LEN || bytes[0] != FORMAT)
		return false;
	memcpy(&version, &bytes[1], 4);
	name_len = bytes[5];
	sealed->version = (int32) pg_ntoh32(version);
	sealed->head = bytes;
	sealed->head_len = HEAD_LEN + name_len;
	sealed->text_len = length - sealed->head_len - IV_LEN - TAG_LEN;
	if (name_len > JOBQ_NAME_MAX || sealed->version < 1 ||
		sealed->text_len < 0)
		return false;
	memcpy(sealed->key_name, &bytes[HEAD_LEN], name_len);
	sealed->key_name[name_len] = '\0';
	sealed->iv = bytes + sealed->head_len;
	sealed->text = sealed->iv + IV_LEN;
	sealed->tag = sealed->text + sealed->text_len;
	return strlen(sealed->key_name) == (size_t) name_len;
}

/* Nothing in here may raise an error: the context is not PostgreSQL's. */
static bool
encrypt(EVP_CIPHER_CTX *context, const uint8 *key, const uint8 *iv,
		const uint8 *aad, int aad_len, const char *text, int text_len,
		uint8 *out, uint8 *tag)
{
	int			length;

	return EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
		EVP_EncryptUpdate(context, NULL, &length, aad, aad_len) == 1 &&
		EVP_EncryptUpdate(context, out, &length, (const uint8 *) text,
						  text_len) == 1 &&
		EVP_EncryptFinal_ex(context, out + length, &length) == 1 &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_LEN, tag) == 1;
}

/* The same; *authentic: it is what was encrypted. */
static bool
decrypt(EVP_CIPHER_CTX *context, const uint8 *key, const Sealed *sealed,
		const uint8 *aad, int aad_len, char *out, bool *authentic)
{
	int			length;
	bool		done;

	done = EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key,
							  sealed->iv) == 1 &&
		EVP_DecryptUpdate(context, NULL, &length, aad, aad_len) == 1 &&
		EVP_DecryptUpdate(context, (uint8 *) out, &length, sealed->text,
						  sealed->text_len) == 1 &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_LEN,
							unconstify(uint8 *, sealed->tag)) == 1;
	*authentic = done &&
		EVP_DecryptFinal_ex(context, (uint8 *) out + length, &length) == 1;
	return done;
}

static EVP_CIPHER_CTX *
new_context(void)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	if (context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return context;
}

static Datum
seal_text(const JobqSecretKey *key, int32 queue_id, int64 id,
		  const char *text, int text_len)
{
	uint8		aad[AAD_MAX];
	uint8		head[HEAD_LEN + JOBQ_NAME_MAX];
	int			head_len = write_head(key, head);
	int			aad_len = write_aad(head, head_len, queue_id, id, aad);
	Size		size = VARHDRSZ + head_len + IV_LEN + text_len + TAG_LEN;
	bytea	   *stored = palloc(size);
	uint8	   *at = (uint8 *) VARDATA(stored);
	uint8	   *iv = at + head_len;
	uint8	   *out = iv + IV_LEN;
	EVP_CIPHER_CTX *context;
	bool		done;

	SET_VARSIZE(stored, size);
	memcpy(at, head, head_len);
	if (!pg_strong_random(iv, IV_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a random number"),
				 errdetail("The host has no source of random numbers at the moment."),
				 errhint("Try again.")));
	context = new_context();
	done = encrypt(context, key->bytes, iv, aad, aad_len, text, text_len, out,
				   out + text_len);
	EVP_CIPHER_CTX_free(context);
	if (!done)
		elog(ERROR, "could not seal a payload");
	return PointerGetDatum(stored);
}

/* The text in the server's encoding; NULL: it is not authentic. */
static char *
open_text(const Sealed *sealed, const JobqSecretKey *key, int32 queue_id,
		  int64 id)
{
	uint8		aad[AAD_MAX];
	int			aad_len = write_aad(sealed->head, sealed->head_len, queue_id,
									id, aad);
	char	   *text = palloc(sealed->text_len + 1);
	EVP_CIPHER_CTX *context = new_context();
	bool		authentic;
	bool		done = decrypt(context, key->bytes, sealed, aad, aad_len, text,
							   &authentic);

	EVP_CIPHER_CTX_free(context);
	if (!done)
		elog(ERROR, "could not open a sealed payload");
	if (!authentic)
	{
		pfree(text);
		return NULL;
	}
	text[sealed->text_len] = '\0';
	return pg_any_to_server(text, sealed->text_len, PG_UTF8);
}

static int32
queue_of(const JobqRow *row)
{
	return DatumGetInt32(row->values[JOB_QUEUE_ID]);
}

static int64
id_of(const JobqRow *row)
{
	return DatumGetInt64(row->values[JOB_ID]);
}

static Datum
parse(const char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

void
jobq_seal(const char *key_name, JobqRow *row)
{
	Jsonb	   *payload = DatumGetJsonbP(row->values[JOB_PAYLOAD]);
	char	   *json = JsonbToCString(NULL, &payload->root, VARSIZE(payload));
	char	   *text = pg_server_to_any(json, (int) strlen(json), PG_UTF8);

	row->values[JOB_SEALED] =
		seal_text(jobq_keyring_get(JOBQ_KEY_SEAL, key_name, JOBQ_KEY_NEWEST),
				  queue_of(row), id_of(row), text, (int) strlen(text));
	row->nulls[JOB_SEALED] = false;
	row->values[JOB_PAYLOAD] = parse("null");
	if (text != json)
		pfree(text);
	pfree(json);
}

Datum
jobq_unseal_payload(Datum value, int32 queue_id, int64 id)
{
	Sealed		sealed;
	char	   *text;

	if (!take_apart(value, &sealed))
		raise_damaged(id);
	text = open_text(&sealed, jobq_keyring_get(JOBQ_KEY_SEAL, sealed.key_name,
											   sealed.version), queue_id, id);
	if (text == NULL)
		raise_damaged(id);
	return parse(text);
}

void
jobq_unseal(JobqRow *row)
{
	row->values[JOB_PAYLOAD] = jobq_unseal_payload(row->values[JOB_SEALED],
												   queue_of(row), id_of(row));
	row->nulls[JOB_SEALED] = true;
}

/* NULL: not what was written, or the key for it is of no use. */
static const JobqSecretKey *
key_of(const JobqRow *row, Sealed *sealed)
{
	if (!take_apart(row->values[JOB_SEALED], sealed))
		return NULL;
	return jobq_keyring_find(JOBQ_KEY_SEAL, sealed->key_name,
							 sealed->version);
}

/* The payload's text; NULL: it cannot be had. */
static char *
try_open(const JobqRow *row, Sealed *sealed)
{
	const JobqSecretKey *key = key_of(row, sealed);

	return key == NULL ? NULL :
		open_text(sealed, key, queue_of(row), id_of(row));
}

bool
jobq_has_seal_key(const JobqRow *row)
{
	Sealed		sealed;

	return !jobq_is_sealed(row) || key_of(row, &sealed) != NULL;
}

bool
jobq_can_unseal(const JobqRow *row)
{
	Sealed		sealed;
	char	   *text;

	if (!jobq_is_sealed(row))
		return true;
	text = try_open(row, &sealed);
	if (text != NULL)
		pfree(text);
	return text != NULL;
}

bool
jobq_try_unseal(JobqRow *row)
{
	Sealed		sealed;
	char	   *text;

	if (!jobq_is_sealed(row))
		return true;
	text = try_open(row, &sealed);
	if (text == NULL)
		return false;
	row->values[JOB_PAYLOAD] = parse(text);
	row->nulls[JOB_SEALED] = true;
	return true;
}

void
jobq_seal_for(JobqRow *row, const char *key_name, int32 queue_id, int64 id)
{
	Sealed		sealed;

	if (jobq_is_sealed(row))
	{
		if (!take_apart(row->values[JOB_SEALED], &sealed))
			raise_damaged(id_of(row));
		if (key_name[0] == '\0')
			key_name = sealed.key_name;
		jobq_unseal(row);
	}
	row->values[JOB_QUEUE_ID] = Int32GetDatum(queue_id);
	row->nulls[JOB_QUEUE_ID] = false;
	row->values[JOB_ID] = Int64GetDatum(id);
	row->nulls[JOB_ID] = false;
	jobq_seal(key_name, row);
}

bool
jobq_can_seal_for(const JobqRow *row, const char *key_name)
{
	Sealed		sealed;
	char	   *text;

	if (jobq_is_sealed(row))
	{
		text = try_open(row, &sealed);
		if (text == NULL)
			return false;
		pfree(text);
		if (key_name[0] == '\0')
			key_name = sealed.key_name;
	}
	return jobq_keyring_find(JOBQ_KEY_SEAL, key_name,
							 JOBQ_KEY_NEWEST) != NULL;
}

bool
jobq_is_sealed_with(const JobqRow *row, const char *key_name)
{
	const JobqSecretKey *key = jobq_keyring_get(JOBQ_KEY_SEAL, key_name,
												JOBQ_KEY_NEWEST);
	Sealed		sealed;

	return jobq_is_sealed(row) &&
		take_apart(row->values[JOB_SEALED], &sealed) &&
		strcmp(sealed.key_name, key->name) == 0 &&
		sealed.version == key->version;
}
