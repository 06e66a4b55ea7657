/*
 * latency_client.c: a producer or a worker for latency.pl, with libpq: says on
 * the standard output when it has put or got which job, in microseconds.
 *
 *   put CONNINFO SQL RATE SECONDS
 *   take CONNINFO TAKE COMPLETE CHANNEL PAUSE_MS
 *
 * SQL gives the id of the job it has made. TAKE gives no row or an id and a
 * lease, or an array of deliveries; COMPLETE ($1 id, $2 lease) may be empty.
 * When there is nothing a worker waits for a notification of CHANNEL, or
 * without one for PAUSE_MS. It ends when it is killed.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define ID_LENGTH	32

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
sleep_us(int64_t us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};

	while (us > 0 && nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

static void
give_up(PGconn *conn)
{
	fprintf(stderr, "%s", PQerrorMessage(conn));
	exit(1);
}

static PGresult *
query(PGconn *conn, const char *sql, int n, const char *const *values)
{
	PGresult   *result = PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		give_up(conn);
	return result;
}

/* The number behind a name in JSON text. */
static void
number_of(const char *json, const char *name, char *number)
{
	const char *at = strstr(json, name);

	if (at == NULL)
		exit(2);
	at += strlen(name);
	snprintf(number, ID_LENGTH, "%.*s", (int) strspn(at, "0123456789"), at);
}

/* Is there a job in the answer? */
static int
read_job(const PGresult *result, char *id, char *lease)
{
	const char *first;

	if (PQntuples(result) == 0)
		return 0;
	first = PQgetvalue(result, 0, 0);
	if (first[0] != '[')
	{
		snprintf(id, ID_LENGTH, "%s", first);
		snprintf(lease, ID_LENGTH, "%s",
				 PQnfields(result) > 1 ? PQgetvalue(result, 0, 1) : "");
		return 1;
	}
	if (first[1] == ']')
		return 0;
	number_of(first, "\"id\": ", id);
	number_of(first, "\"lease\": ", lease);
	return 1;
}

static void
await_notification(PGconn *conn)
{
	struct pollfd socket = {.fd = PQsocket(conn),.events = POLLIN};
	PGnotify   *notification;

	while ((notification = PQnotifies(conn)) == NULL)
	{
		(void) poll(&socket, 1, -1);
		if (!PQconsumeInput(conn))
			give_up(conn);
	}
	for (; notification != NULL; notification = PQnotifies(conn))
		PQfreemem(notification);
}

static void
take(PGconn *conn, char **argv)
{
	const char *complete = argv[1];
	const char *channel = argv[2];
	int64_t		pause = atoll(argv[3]) * 1000;
	char		id[ID_LENGTH];
	char		lease[ID_LENGTH];
	const char *const values[] = {id, lease};

	if (channel[0] != '\0')
	{
		char		listen[128];

		snprintf(listen, sizeof(listen), "LISTEN \"%s\"", channel);
		PQclear(query(conn, listen, 0, NULL));
	}
	for (;;)
	{
		PGresult   *result = query(conn, argv[0], 0, NULL);
		int			got = read_job(result, id, lease);

		if (got)
		{
			printf("%s %lld\n", id, (long long) now_us());
			fflush(stdout);
		}
		PQclear(result);
		if (got && complete[0] != '\0')
			PQclear(query(conn, complete, 2, values));
		if (!got && channel[0] != '\0')
			await_notification(conn);
		else if (!got)
			sleep_us(pause);
	}
}

static void
put(PGconn *conn, char **argv)
{
	double		rate = atof(argv[1]);
	int64_t		jobs = (int64_t) (rate * atof(argv[2]));
	int64_t		start = now_us();

	for (int64_t n = 0; n < jobs; n++)
	{
		int64_t		before;
		PGresult   *result;

		sleep_us(start + (int64_t) (n * 1e6 / rate) - now_us());
		before = now_us();
		result = query(conn, argv[0], 0, NULL);
		printf("%s %lld %lld\n", PQgetvalue(result, 0, 0), (long long) before,
			   (long long) now_us());
		PQclear(result);
	}
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;

	if (argc < 6)
		return 2;
	conn = PQconnectdb(argv[2]);
	if (PQstatus(conn) != CONNECTION_OK)
		give_up(conn);
	if (strcmp(argv[1], "put") == 0)
		put(conn, argv + 3);
	else if (argc == 7)
		take(conn, argv + 3);
	PQfinish(conn);
	return 0;
}
