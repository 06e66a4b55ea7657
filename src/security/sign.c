/*
 * sign.c: signs deliveries and verifies signatures. What is signed is stated in
 * docs/sign-and-seal.md, so that other programs can do the same; it must never
 * change. Compares in constant time.
 */
#include "postgres.h"

#include <openssl/crypto.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "compat.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/keyring.h"
#include "security/secret.h"
#include "security/sign.h"

#define SIGNATURE		"signature"
#define SIGNATURE_KEY	"signature_key"
#define SIGNATURE_TIME	"signature_time"
#define PREFIX			"sha256="
#define SIGNATURE_LEN	(sizeof(PREFIX) - 1 + JOBQ_KEY_LEN * 2)

#define UNIX_EPOCH_MS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * INT64CONST(1000))

PG_FUNCTION_INFO_V1(jobq_sql_verify_signature);

/* Milliseconds since 1970. */
static int64
to_ms(TimestampTz time)
{
	return time / 1000 + UNIX_EPOCH_MS;
}

/* "sha256=" and 64 hexadecimal digits over id, time and payload. */
static void
sign(const JobqSecretKey *key, int64 id, int64 time, const char *payload,
	 char *signature)
{
	uint8		hmac[JOBQ_KEY_LEN];
	StringInfoData message;

	initStringInfo(&message);
	appendStringInfo(&message, INT64_FORMAT "." INT64_FORMAT ".", id, time);
	appendStringInfoString(&message,
						   pg_server_to_any(payload, (int) strlen(payload),
											PG_UTF8));
	jobq_hmac(key->bytes, JOBQ_KEY_LEN, message.data, message.len, hmac);
	pfree(message.data);
	strlcpy(signature, PREFIX, SIGNATURE_LEN + 1);
	for (int i = 0; i < JOBQ_KEY_LEN; i++)
		snprintf(&signature[sizeof(PREFIX) - 1 + i * 2], 3, "%02x", hmac[i]);
}

static void
push(JsonbParseState **state, const char *name, JsonbValue *value)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = (int) strlen(name);
	(void) pushJsonbValue(state, WJB_KEY, &key);
	(void) pushJsonbValue(state, WJB_VALUE, value);
}

static void
push_text(JsonbParseState **state, const char *name, char *text)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = text;
	value.val.string.len = (int) strlen(text);
	push(state, name, &value);
}

/* Of equal keys in an object the last one counts. */
static void
push_headers(JsonbParseState **state, Jsonb *headers)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (headers == NULL)
		return;
	it = JsonbIteratorInit(&headers->root);
	(void) JsonbIteratorNext(&it, &value, true);	/* the object itself */
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
		(void) pushJsonbValue(state, token, &value);
}

Jsonb *
jobq_sign_headers(const char *key_name, int64 id, TimestampTz claimed_at,
				  Jsonb *payload, Jsonb *headers)
{
	const JobqSecretKey *key = jobq_keyring_get(JOBQ_KEY_SIGN, key_name,
									  JOBQ_KEY_NEWEST);
	int64		time = to_ms(claimed_at);
	char		signature[SIGNATURE_LEN + 1];
	JsonbValue	number = {.type = jbvNumeric};
	JsonbParseState *state = NULL;

	sign(key, id, time, JsonbToCString(NULL, &payload->root,
									   VARSIZE(payload)), signature);
	number.val.numeric = int64_to_numeric(time);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_headers(&state, headers);
	push_text(&state, SIGNATURE, signature);
	push_text(&state, SIGNATURE_KEY,
			  psprintf("%s:%d", key->name, key->version));
	push(&state, SIGNATURE_TIME, &number);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* ---- verifying ---- */

/* What the headers say. */
typedef struct Claimed
{
	char		signature[SIGNATURE_LEN + 1];
	int32		version;
	int64		time;
} Claimed;

static JsonbValue *
get_header(Jsonb *headers, const char *name, enum jbvType type,
		   JsonbValue *value)
{
	if (getKeyJsonValueFromContainer(&headers->root, name, strlen(name),
									 value) == NULL || value->type != type)
		return NULL;
	return value;
}

/* A number in decimal, the whole string. */
static bool
read_number(const char *digits, int64 max, int64 *number)
{
	char	   *end;

	errno = 0;
	*number = strtoi64(digits, &end, 10);
	return errno == 0 && end != digits && *end == '\0' && *number >= 0 &&
		*number <= max;
}

/* "<name>:<version>", with the name that is expected. */
static bool
read_key_id(const JsonbValue *value, const char *name, int32 *version)
{
	char	   *id = pnstrdup(value->val.string.val, value->val.string.len);
	size_t		length = strlen(name);
	int64		number;

	if (strncmp(id, name, length) != 0 || id[length] != ':' ||
		!read_number(&id[length + 1], PG_INT32_MAX, &number) || number == 0)
		return false;
	*version = (int32) number;
	return true;
}

static bool
read_headers(Jsonb *headers, const char *key_name, Claimed *claimed)
{
	JsonbValue	value;

	if (get_header(headers, SIGNATURE, jbvString, &value) == NULL ||
		value.val.string.len != (int) SIGNATURE_LEN)
		return false;
	memcpy(claimed->signature, value.val.string.val, SIGNATURE_LEN);
	claimed->signature[SIGNATURE_LEN] = '\0';
	return get_header(headers, SIGNATURE_KEY, jbvString, &value) != NULL &&
		read_key_id(&value, key_name, &claimed->version) &&
		get_header(headers, SIGNATURE_TIME, jbvNumeric, &value) != NULL &&
		read_number(numeric_normalize(value.val.numeric), PG_INT64_MAX,
					&claimed->time);
}

/* NULL when the signature is right, else what is wrong: a full sentence. */
static const char *
find_fault(const char *key_name, int64 id, const char *payload,
		   Jsonb *headers, int64 max_age)
{
	Claimed		claimed;
	char		expected[SIGNATURE_LEN + 1];

	if (!read_headers(headers, key_name, &claimed))
		return "The headers have no signature by this key.";
	sign(jobq_keyring_get(JOBQ_KEY_SIGN, key_name, claimed.version), id,
		 claimed.time, payload, expected);
	if (CRYPTO_memcmp(expected, claimed.signature, SIGNATURE_LEN) != 0)
		return "It is not the one of this id, time and payload.";
	if (to_ms(jobq_now()) - claimed.time > max_age)
		return "It is older than \"max_age\" allows.";
	return NULL;
}

static bool
read_on_wrong(FunctionCallInfo fcinfo, int argno)
{
	char	   *word;

	if (PG_ARGISNULL(argno))
		return true;
	word = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (strcmp(word, "error") != 0 && strcmp(word, "false") != 0)
		jobq_bad_argument("on_wrong", "Valid are: error, false.");
	return word[0] == 'e';
}

/* verify_signature(key, id, payload, headers, max_age, on_wrong) → boolean */
Datum
jobq_sql_verify_signature(PG_FUNCTION_ARGS)
{
	JobqSession session;
	char	   *key_name;
	Jsonb	   *headers;
	int64		max_age = PG_INT64_MAX;
	bool		raise;
	const char *fault;

	jobq_begin_read(&session);
	jobq_audit_call = "jobq.verify_signature()";
	jobq_arg_required(fcinfo, 0, "key");
	jobq_arg_required(fcinfo, 1, "id");
	jobq_arg_required(fcinfo, 2, "payload");
	jobq_arg_required(fcinfo, 3, "headers");
	key_name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "key");
	headers = PG_GETARG_JSONB_P(3);
	jobq_arg_object(headers, "headers");
	if (!PG_ARGISNULL(4))
		max_age = jobq_arg_interval(PG_GETARG_INTERVAL_P(4), "max_age", 0,
									JOBQ_DELAY_MAX) / 1000;
	raise = read_on_wrong(fcinfo, 5);
	fault = find_fault(key_name, PG_GETARG_INT64(1),
					   text_to_cstring(PG_GETARG_TEXT_PP(2)), headers,
					   max_age);
	if (fault != NULL)
		jobq_audit_refusal("jobq.verify_signature()", 0, PG_GETARG_INT64(1),
						   ERRCODE_JOBQ_SIGNATURE, "the signature is wrong");
	if (fault != NULL && raise)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_SIGNATURE),
				 errmsg("the signature of job " INT64_FORMAT " is wrong",
						PG_GETARG_INT64(1)),
				 errdetail_internal("%s", fault),
				 errhint("Do not act upon the job. Pass its id, payload and headers as they were delivered.")));
	PG_RETURN_BOOL(fault == NULL);
}
