# calls.awk: makes SQL from calls.tsv: fills jobq.call and grants to the roles
# jobq_admin, jobq_monitor and jobq_key_user, which may call whatever an access
# key can give. Grants for queues are grant_queue's business,
# which reads jobq.call. Stops at a line it does not understand.

function stop(why) {
	printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0 > "/dev/stderr"
	failed = 1
	exit 1
}

function quoted(text) {
	gsub(/'/, "''", text)
	return "'" text "'"
}

BEGIN {
	FS = "\t"
	split("enqueue dequeue read manage monitor key admin", words, " ")
	for (w in words)
		known[words[w]] = 1
	print "-- Made from calls.tsv: do not change it here.\n"
	print "GRANT USAGE ON SCHEMA jobq TO jobq_admin, jobq_monitor, jobq_key_user;"
}

/^#/ || /^[ \t]*$/ { next }

{
	if (NF != 2)
		stop("expected a call, one tab and its privileges")
	if (seen[$1]++)
		stop("listed twice")

	is_view = ($1 ~ /^view /)
	name = $1
	sub(/^view /, "", name)
	if (is_view ? name !~ /^[a-z_]+$/ : name !~ /^[a-z_]+\(.*\)$/)
		stop("neither a function's signature nor a view")

	object = (is_view ? "SELECT ON TABLE" : "EXECUTE ON ROUTINE") " jobq." name
	print "GRANT " object " TO jobq_admin;"
	by_key = 0
	n = split($2, privileges, ",")
	if (n == 0)
		stop("no privileges")
	for (i = 1; i <= n; i++) {
		if (!(privileges[i] in known))
			stop("no such privilege: " privileges[i])
		if (privileges[i] == "monitor")
			print "GRANT " object " TO jobq_monitor;"
		if (privileges[i] ~ /^(enqueue|dequeue|read|key)$/)
			by_key = 1
		rows = rows (rows == "" ? "" : ",\n") "\t(" quoted(name) ", " \
			quoted(privileges[i]) ", " (is_view ? "true" : "false") ")"
	}
	if (by_key)
		print "GRANT " object " TO jobq_key_user;"
}

END {
	if (failed)
		exit 1
	print "\nINSERT INTO jobq.call (call, privilege, is_view) VALUES\n" rows ";"
}
