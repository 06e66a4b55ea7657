# Every version of the SQL script that can be installed, updated to the present
# one, gives the same objects as a fresh installation. That the comparison sees
# what an update script forgets is shown with versions made up for the purpose.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Everything the extension has in the catalogs, one fact a line, sorted.
# Numbers that differ from one installation to the next are taken out.
my $describe = <<'SQL';
SET search_path = pg_catalog;
WITH member AS (
	SELECT d.classid, d.objid, d.deptype
	FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
	WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_jobq'
		AND d.deptype IN ('e', 'x')),
rel AS (
	SELECT c.*, c.oid::regclass::text AS name FROM pg_class c
	WHERE c.relnamespace = 'jobq'::regnamespace),
acls AS (
	SELECT 'schema jobq' AS name, n.nspacl AS acl, 'n'::"char" AS kind, n.nspowner AS owner
		FROM pg_namespace n WHERE n.nspname = 'jobq'
	UNION ALL SELECT r.name, r.relacl, CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner
		FROM rel r WHERE r.relkind IN ('r', 'v', 'S', 'm', 'p')
	UNION ALL SELECT p.oid::regprocedure::text, p.proacl, 'f', p.proowner
		FROM pg_proc p WHERE p.pronamespace = 'jobq'::regnamespace
	UNION ALL SELECT t.oid::regtype::text, t.typacl, 'T', t.typowner
		FROM pg_type t WHERE t.typnamespace = 'jobq'::regnamespace),
fact (fact) AS (
	SELECT format('%s: member as %s', pg_describe_object(m.classid, m.objid, 0), m.deptype)
		FROM member m
	UNION ALL SELECT format('%s: relation %s %s %s %s rls %s %s owner %s options %s tablespace %s access %s',
			r.name, r.relkind, r.relpersistence, r.relnatts, r.relreplident,
			r.relrowsecurity, r.relforcerowsecurity, r.relowner::regrole,
			r.reloptions, r.reltablespace, (SELECT amname FROM pg_am a WHERE a.oid = r.relam))
		FROM rel r WHERE r.relkind <> 't'
	UNION ALL SELECT format('%s: column %s %s %s notnull %s identity %s generated %s stats %s storage %s compression %s collation %s default %s acl %s dropped %s',
			r.name, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
			a.attnotnull, a.attidentity, a.attgenerated, a.attstattarget,
			a.attstorage, a.attcompression, a.attcollation::regcollation,
			pg_get_expr(d.adbin, d.adrelid), a.attacl, a.attisdropped)
		FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0
			LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
		WHERE r.relkind <> 't'
	UNION ALL SELECT format('%s: constraint %s %s %s', r.name, c.conname,
			pg_get_constraintdef(c.oid), c.convalidated)
		FROM rel r JOIN pg_constraint c ON c.conrelid = r.oid
	UNION ALL SELECT format('%s: index %s valid %s ready %s clustered %s', i.indrelid::regclass,
			pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indisclustered)
		FROM pg_index i JOIN rel r ON r.oid = i.indrelid WHERE r.relkind <> 't'
	UNION ALL SELECT format('%s: trigger %s %s', r.name, pg_get_triggerdef(t.oid), t.tgenabled)
		FROM pg_trigger t JOIN rel r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
	UNION ALL SELECT format('%s: rule %s', r.name, pg_get_ruledef(u.oid))
		FROM pg_rewrite u JOIN rel r ON r.oid = u.ev_class
	UNION ALL SELECT format('%s: policy %s %s', r.name, p.polname, pg_get_expr(p.polqual, p.polrelid))
		FROM pg_policy p JOIN rel r ON r.oid = p.polrelid
	UNION ALL SELECT format('%s: sequence %s', r.name, s)
		FROM rel r, LATERAL (SELECT seqtypid::regtype, seqstart, seqincrement,
			seqmax, seqmin, seqcache, seqcycle FROM pg_sequence WHERE seqrelid = r.oid) s
	UNION ALL SELECT format('%s: function owner %s cost %s rows %s kind %s definer %s leakproof %s strict %s volatile %s parallel %s support %s probin %s config %s: %s',
			p.oid::regprocedure, p.proowner::regrole, p.procost, p.prorows, p.prokind,
			p.prosecdef, p.proleakproof, p.proisstrict, p.provolatile,
			p.proparallel, p.prosupport, p.probin, p.proconfig,
			CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END)
		FROM pg_proc p WHERE p.pronamespace = 'jobq'::regnamespace
	UNION ALL SELECT format('%s: type %s %s owner %s default %s notnull %s', t.oid::regtype, t.typtype,
			t.typcategory, t.typowner::regrole, t.typdefault, t.typnotnull)
		FROM pg_type t WHERE t.typnamespace = 'jobq'::regnamespace
	UNION ALL SELECT format('%s: enum %s %s', e.enumtypid::regtype, e.enumsortorder, e.enumlabel)
		FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
		WHERE t.typnamespace = 'jobq'::regnamespace
	UNION ALL SELECT format('%s: privilege %s of %s grantable %s', o.name, a.privilege_type,
			CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.is_grantable)
		FROM acls o, aclexplode(coalesce(o.acl, acldefault(o.kind, o.owner))) a
	UNION ALL SELECT format('%s: initial privileges %s', pg_describe_object(i.classoid, i.objoid, i.objsubid),
			(SELECT string_agg(a.privilege_type || ' of ' || a.grantee::regrole, ', '
				ORDER BY a.grantee::regrole::text, a.privilege_type) FROM aclexplode(i.initprivs) a))
		FROM pg_init_privs i JOIN member m ON m.classid = i.classoid AND m.objid = i.objoid
	UNION ALL SELECT format('%s: comment %s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid),
			d.objsubid, d.description)
		FROM pg_description d
		WHERE EXISTS (SELECT FROM member m WHERE m.classid = d.classoid AND m.objid = d.objoid)
	UNION ALL SELECT format('%s: dumped as configuration: %s', c.oid::regclass, u.condition)
		FROM pg_extension e, unnest(e.extconfig, e.extcondition) u (table_oid, condition)
			JOIN pg_class c ON c.oid = u.table_oid WHERE e.extname = 'pg_jobq'
	UNION ALL SELECT format('extension: version %s owner %s schema %s relocatable %s', e.extversion,
			e.extowner::regrole, e.extnamespace::regnamespace, e.extrelocatable)
		FROM pg_extension e WHERE e.extname = 'pg_jobq'
	UNION ALL SELECT format('%s: depends on %s, %s',
			pg_describe_object(d.classid, d.objid, d.objsubid),
			pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid), d.deptype)
		FROM pg_depend d
		WHERE EXISTS (SELECT FROM member m WHERE m.classid = d.classid AND m.objid = d.objid)
			AND d.deptype IN ('n', 'a')
	UNION ALL SELECT format('call %s', c) FROM jobq.call c
	UNION ALL SELECT format('class %s', c) FROM jobq.class c)
-- the numbers of epochs and of TOAST tables
SELECT regexp_replace(fact, '((?:job|claim|outcome|pg_toast)_)\d+', '\1N', 'g')
FROM fact ORDER BY 1;
SQL

my $node = start_node('versions');
my $version =
  $node->safe_psql('postgres',
	q{SELECT default_version FROM pg_available_extensions WHERE name = 'pg_jobq'});
chomp(my $share = qx{pg_config --sharedir});
my $scripts = "$share/extension";

# The objects after these statements in a database of their own.
my $databases = 0;

sub describe
{
	my (@statements) = @_;
	my $database = 'v' . ++$databases;
	my $facts;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, $_) foreach @statements;
	$facts = $node->safe_psql($database, $describe);
	$node->safe_psql('postgres', "DROP DATABASE $database");
	return $facts;
}

# Lines that only one of two descriptions has, marked.
sub difference
{
	my ($expected, $got) = @_;
	my %count;

	$count{$_}++ foreach split(/\n/, $expected);
	$count{$_}-- foreach split(/\n/, $got);
	return join("\n",
		map { ($count{$_} > 0 ? 'missing: ' : 'surplus: ') . $_ }
		grep { $count{$_} != 0 } sort keys %count);
}

my $fresh = describe('CREATE EXTENSION pg_jobq');
my @facts = split(/\n/, $fresh);
cmp_ok(scalar @facts, '>', 300, 'a fresh installation is described');
note(scalar(@facts) . ' facts');
is(difference($fresh, describe('CREATE EXTENSION pg_jobq')),
	'', 'two fresh installations are equal');

# ---- every version there is ----

sub installable
{
	return split(
		/\n/,
		$node->safe_psql(
			'postgres', q{SELECT version FROM pg_available_extension_versions
			WHERE name = 'pg_jobq' ORDER BY 1}));
}

sub updated
{
	my ($from) = @_;

	return difference(
		$fresh,
		describe(
			"CREATE EXTENSION pg_jobq VERSION '$from'",
			$from eq $version
			? 'SELECT 1'
			: "ALTER EXTENSION pg_jobq UPDATE TO '$version'"));
}

foreach my $from (installable())
{
	is(updated($from), '', "version $from, updated to $version, is the same as a fresh $version");
}

# ---- does the comparison see everything? ----

# A version 0.0.0 that lacks or has otherwise what the update puts right. Each
# pair is: the old script's statement at its end, the update's.
my @changes = (
	[ 'a function', 'DROP FUNCTION jobq.run_maintenance()',
		q{CREATE FUNCTION jobq.run_maintenance() RETURNS void
			LANGUAGE c VOLATILE PARALLEL UNSAFE
			AS 'MODULE_PATHNAME', 'jobq_sql_run_maintenance';
		COMMENT ON FUNCTION jobq.run_maintenance() IS
			'Has the keeper do at once what it would do by itself later, and waits until it has. For members of jobq_admin.';
		REVOKE ALL ON FUNCTION jobq.run_maintenance() FROM PUBLIC;
		GRANT EXECUTE ON FUNCTION jobq.run_maintenance() TO jobq_admin} ],
	[ 'a column\'s default', 'ALTER TABLE jobq.queue ALTER paused SET DEFAULT true',
		'ALTER TABLE jobq.queue ALTER paused SET DEFAULT false' ],
	[ 'an index', 'DROP INDEX jobq.shelf_group',
		'CREATE INDEX shelf_group ON jobq.shelf (queue_id, group_key)' ],
	[ 'a constraint', 'ALTER TABLE jobq.class DROP CONSTRAINT class_retention_key',
		'ALTER TABLE jobq.class ADD CONSTRAINT class_retention_key UNIQUE (retention)' ],
	[ 'a comment', q{COMMENT ON TABLE jobq.call IS 'old'}, undef ],
	[ 'a privilege', 'REVOKE EXECUTE ON FUNCTION jobq.peek(text, bigint) FROM jobq_admin',
		'GRANT EXECUTE ON FUNCTION jobq.peek(text, bigint) TO jobq_admin' ],
	[ 'a function\'s property', 'ALTER FUNCTION jobq.health() STABLE',
		'ALTER FUNCTION jobq.health() VOLATILE' ],
	[ 'an option of a view', 'ALTER VIEW jobq.jobs SET (security_barrier = false)',
		'ALTER VIEW jobq.jobs SET (security_barrier = true)' ],
	[ 'a setting of a sequence', 'ALTER SEQUENCE jobq.number_block CACHE 5',
		'ALTER SEQUENCE jobq.number_block CACHE 1' ],
	[ 'statistics of a column', 'ALTER TABLE jobq.shelf ALTER payload SET STATISTICS 7',
		'ALTER TABLE jobq.shelf ALTER payload SET STATISTICS 0' ],
	[ 'the list of calls', q{DELETE FROM jobq.call WHERE call = 'health()'},
		q{INSERT INTO jobq.call VALUES ('health()', 'monitor', false), ('health()', 'admin', false)} ]);

my $present = slurp_file("$scripts/pg_jobq--$version.sql");
my ($comment) = $present =~ /(COMMENT ON TABLE jobq\.call IS\s+'[^']*')/;
(grep { $_->[0] eq 'a comment' } @changes)[0]->[2] = $comment;

my $old = "$scripts/pg_jobq--0.0.0.sql";
my $update = "$scripts/pg_jobq--0.0.0--$version.sql";

sub write_file
{
	my ($file, $text) = @_;

	unlink $file;
	append_to_file($file, $text);
	return;
}

# An installed server's directory is not ours to write into.
SKIP:
{
	skip 'the directory of scripts cannot be written', 1 unless -w $scripts;

	# The last statement opens the first epoch and stays last.
	my $end = 'SELECT jobq._open_first_epoch();';
	my $damage = join(";\n", map { $_->[1] } @changes);

	(my $text = $present) =~ s/\Q$end\E/$damage;\n$end/;
	write_file($old, $text);
	my $header = "\\echo Use \"ALTER EXTENSION pg_jobq UPDATE\" to load this file. \\quit\n";
	write_file($update, $header . join(";\n", map { $_->[2] } @changes) . ";\n");
	is_deeply([ grep { $_ eq '0.0.0' } installable() ],
		['0.0.0'], 'the made-up version can be installed');
	is(updated('0.0.0'), '', 'an update that forgets nothing passes');

	foreach my $forgotten (@changes)
	{
		write_file($update, $header
			  . join(";\n", map { $_->[2] } grep { $_ != $forgotten } @changes)
			  . ";\n");
		my $found = updated('0.0.0');
		isnt($found, '', "an update that forgets $forgotten->[0] is noticed");
	}
	unlink $old, $update;
}

$node->stop;
done_testing();
