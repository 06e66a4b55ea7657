/*
 * role.c: type jobq.role: a role's OID on disk, its name in text and binary
 * form, so that dumps carry names. Never fails for a role that is not there.
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/acl.h"

PG_FUNCTION_INFO_V1(jobq_role_in);
PG_FUNCTION_INFO_V1(jobq_role_out);
PG_FUNCTION_INFO_V1(jobq_role_recv);
PG_FUNCTION_INFO_V1(jobq_role_send);

#define NOBODY	"-"

static Oid
role_of(const char *name)
{
	return strcmp(name, NOBODY) == 0 ? InvalidOid : get_role_oid(name, true);
}

static char *
name_of(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name != NULL ? name : pstrdup(NOBODY);
}

Datum
jobq_role_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(role_of(PG_GETARG_CSTRING(0)));
}

Datum
jobq_role_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(name_of(PG_GETARG_OID(0)));
}

Datum
jobq_role_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			length;

	PG_RETURN_OID(role_of(pq_getmsgtext(buf, buf->len - buf->cursor,
										&length)));
}

Datum
jobq_role_send(PG_FUNCTION_ARGS)
{
	char	   *name = name_of(PG_GETARG_OID(0));
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendtext(&buf, name, strlen(name));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
