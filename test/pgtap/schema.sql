-- The option schema: what each keyword accepts and refuses, with the place that is
-- told; what is not a schema; what would take too long.
\ir setup.psql
SELECT jobq.create_queue('schema', '{"max_json_depth": 100000}') AS x \gset

-- 'ok', or the pointer and the keyword of the refusal
CREATE FUNCTION pg_temp.verdict(schema jsonb, payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM jobq.alter_queue('schema', jsonb_build_object('schema', schema));
	PERFORM jobq.enqueue('schema', payload);
	RETURN 'ok';
EXCEPTION WHEN SQLSTATE 'JQ016' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(detail, '^At "(.*)" it breaks the keyword "(.*)"\.$', '\1 \2');
END
$$;

CREATE TEMP TABLE example (n int GENERATED ALWAYS AS IDENTITY, schema jsonb, payload jsonb, verdict text);
INSERT INTO example (schema, payload, verdict) VALUES
-- boolean schemas
	('true', '{"a": 1}', 'ok'),
	('true', 'null', 'ok'),
	('false', '{}', ' false'),
	('{}', '[1, "a"]', 'ok'),
-- type
	('{"type": "string"}', '"a"', 'ok'),
	('{"type": "string"}', '1', ' type'),
	('{"type": "string"}', 'null', ' type'),
	('{"type": "number"}', '1.5', 'ok'),
	('{"type": "number"}', '1', 'ok'),
	('{"type": "number"}', '"1"', ' type'),
	('{"type": "integer"}', '1', 'ok'),
	('{"type": "integer"}', '1.0', 'ok'),
	('{"type": "integer"}', '1e3', 'ok'),
	('{"type": "integer"}', '1.5', ' type'),
	('{"type": "integer"}', '-0.0', 'ok'),
	('{"type": "integer"}', '"1"', ' type'),
	('{"type": "integer"}', '123456789012345678901234567890', 'ok'),
	('{"type": "integer"}', '123456789012345678901234567890.000000000000000000001', ' type'),
	('{"type": "boolean"}', 'false', 'ok'),
	('{"type": "boolean"}', '0', ' type'),
	('{"type": "null"}', 'null', 'ok'),
	('{"type": "null"}', 'false', ' type'),
	('{"type": "null"}', '{}', ' type'),
	('{"type": "object"}', '{}', 'ok'),
	('{"type": "object"}', '[]', ' type'),
	('{"type": "object"}', 'null', ' type'),
	('{"type": "array"}', '[]', 'ok'),
	('{"type": "array"}', '{}', ' type'),
	('{"type": "array"}', '"[]"', ' type'),
	('{"type": ["string", "null"]}', 'null', 'ok'),
	('{"type": ["string", "null"]}', '"a"', 'ok'),
	('{"type": ["string", "null"]}', '1', ' type'),
	('{"type": ["integer", "number"]}', '1.5', 'ok'),
	('{"type": ["integer", "string"]}', '1.5', ' type'),
-- enum, const
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '1', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '1.00', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '"a"', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '"b"', ' enum'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', 'null', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', 'true', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', 'false', ' enum'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '[1.0]', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '[2]', ' enum'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '{"b": 2.0}', 'ok'),
	('{"enum": [1, "a", null, true, [1], {"b": 2}]}', '{"b": 2, "c": 3}', ' enum'),
	('{"enum": []}', '1', ' enum'),
	('{"enum": [0]}', 'false', ' enum'),
	('{"enum": [[false]]}', '[0]', ' enum'),
	('{"enum": ["bb", "a", "ccc", "ab"]}', '"ab"', 'ok'),
	('{"enum": ["bb", "a", "ccc", "ab"]}', '"ba"', ' enum'),
	('{"const": 2}', '2', 'ok'),
	('{"const": 2}', '2.0', 'ok'),
	('{"const": 2}', '5', ' const'),
	('{"const": null}', 'null', 'ok'),
	('{"const": null}', '0', ' const'),
	('{"const": {"a": false}}', '{"a": 0}', ' const'),
	('{"const": {"a": [1, 2]}}', '{"a": [2, 1]}', ' const'),
	('{"const": "a"}', '"a"', 'ok'),
	('{"const": ""}', '" "', ' const'),
-- numbers
	('{"minimum": 1.1}', '2.6', 'ok'),
	('{"minimum": 1.1}', '1.1', 'ok'),
	('{"minimum": 1.1}', '0.6', ' minimum'),
	('{"minimum": 1.1}', '"x"', 'ok'),
	('{"minimum": -2}', '-2.0001', ' minimum'),
	('{"maximum": 3.0}', '3', 'ok'),
	('{"maximum": 3.0}', '3.5', ' maximum'),
	('{"maximum": 9007199254740992}', '9007199254740993', ' maximum'),
	('{"exclusiveMinimum": 1.1}', '1.2', 'ok'),
	('{"exclusiveMinimum": 1.1}', '1.1', ' exclusiveMinimum'),
	('{"exclusiveMaximum": 3}', '2.99999999999999999999', 'ok'),
	('{"exclusiveMaximum": 3}', '3', ' exclusiveMaximum'),
	('{"multipleOf": 2}', '10', 'ok'),
	('{"multipleOf": 2}', '7', ' multipleOf'),
	('{"multipleOf": 2}', '"7"', 'ok'),
	('{"multipleOf": 1.5}', '4.5', 'ok'),
	('{"multipleOf": 1.5}', '35', ' multipleOf'),
	('{"multipleOf": 0.0001}', '0.0075', 'ok'),
	('{"multipleOf": 0.0001}', '0.00751', ' multipleOf'),
	('{"multipleOf": 0.1}', '0.3', 'ok'),
	('{"multipleOf": 0.01}', '4.35', 'ok'),
	('{"multipleOf": 0.01}', '4.357', ' multipleOf'),
	('{"multipleOf": 0.123456789}', '1e308', ' multipleOf'),
	('{"multipleOf": 3}', '-9', 'ok'),
	('{"multipleOf": 3}', '0', 'ok'),
-- strings, in characters
	('{"minLength": 2}', '"fo"', 'ok'),
	('{"minLength": 2}', '"f"', ' minLength'),
	('{"minLength": 2}', '"ä"', ' minLength'),
	('{"minLength": 2}', '1', 'ok'),
	('{"minLength": 2.0}', '"f"', ' minLength'),
	('{"maxLength": 2}', '"ää"', 'ok'),
	('{"maxLength": 2}', '"äää"', ' maxLength'),
	('{"maxLength": 2}', '"😀😀"', 'ok'),
	('{"maxLength": 0}', '""', 'ok'),
	('{"maxLength": 0}', '"a"', ' maxLength'),
	('{"pattern": "^a*$"}', '"aaa"', 'ok'),
	('{"pattern": "^a*$"}', '"abc"', ' pattern'),
	('{"pattern": "^a*$"}', '123', 'ok'),
	('{"pattern": "b+"}', '"abbc"', 'ok'),
	('{"pattern": "^[0-9a-f]{8}-[0-9a-f]{4}$"}', '"0123abcd-ef01"', 'ok'),
	('{"pattern": "^[0-9a-f]{8}-[0-9a-f]{4}$"}', '"0123abcd-eg01"', ' pattern'),
	('{"pattern": "^\\d+$"}', '"12"', 'ok'),
	('{"pattern": "^\\d+$"}', '"1a"', ' pattern'),
	('{"pattern": "^\\S+$"}', '"a b"', ' pattern'),
	('{"pattern": "^ä.ö$"}', '"äxö"', 'ok'),
	('{"pattern": "(?i)^x$"}', '"X"', 'ok'),
	('{"pattern": ""}', '"anything"', 'ok'),
	('{"format": "email"}', '"not an address"', 'ok'),
-- arrays
	('{"minItems": 1}', '[1]', 'ok'),
	('{"minItems": 1}', '[]', ' minItems'),
	('{"minItems": 1}', '""', 'ok'),
	('{"maxItems": 2}', '[1, 2]', 'ok'),
	('{"maxItems": 2}', '[1, 2, 3]', ' maxItems'),
	('{"items": {"type": "integer"}}', '[1, 2, 3]', 'ok'),
	('{"items": {"type": "integer"}}', '[1, "x"]', '/1 type'),
	('{"items": {"type": "integer"}}', '{"foo": "bar"}', 'ok'),
	('{"items": false}', '[]', 'ok'),
	('{"items": false}', '[1]', '/0 items'),
	('{"items": true}', '[1, "a"]', 'ok'),
	('{"items": {"items": {"items": {"type": "integer"}}}}', '[[[1]], [[2], [3]]]', 'ok'),
	('{"items": {"items": {"items": {"type": "integer"}}}}', '[[[1]], [[2], ["a"]]]', '/1/1/0 type'),
	('{"prefixItems": [{"type": "integer"}, {"type": "string"}]}', '[1, "foo"]', 'ok'),
	('{"prefixItems": [{"type": "integer"}, {"type": "string"}]}', '["foo", 1]', '/0 type'),
	('{"prefixItems": [{"type": "integer"}, {"type": "string"}]}', '[1]', 'ok'),
	('{"prefixItems": [{"type": "integer"}, {"type": "string"}]}', '[1, "foo", true]', 'ok'),
	('{"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}', '[1, "a", "b"]', 'ok'),
	('{"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}', '[1, "a", 2]', '/2 type'),
	('{"prefixItems": [true, false]}', '[1]', 'ok'),
	('{"prefixItems": [true, false]}', '[1, 2]', '/1 prefixItems'),
	('{"contains": {"minimum": 5}}', '[3, 4, 5]', 'ok'),
	('{"contains": {"minimum": 5}}', '[2, 3, 4]', ' contains'),
	('{"contains": {"minimum": 5}}', '[]', ' contains'),
	('{"contains": {"minimum": 5}}', '{}', 'ok'),
	('{"contains": {"const": 1}, "minContains": 2}', '[1, 1]', 'ok'),
	('{"contains": {"const": 1}, "minContains": 2}', '[1, 2]', ' minContains'),
	('{"contains": {"const": 1}, "minContains": 0}', '[2]', 'ok'),
	('{"contains": {"const": 1}, "maxContains": 1}', '[1, 1]', ' maxContains'),
	('{"contains": {"const": 1}, "maxContains": 1}', '[1, 2]', 'ok'),
	('{"minContains": 2, "maxContains": 0}', '[1]', 'ok'),
	('{"uniqueItems": true}', '[1, 2]', 'ok'),
	('{"uniqueItems": true}', '[1, 2, 1]', ' uniqueItems'),
	('{"uniqueItems": true}', '[1.0, 1.00, 1]', ' uniqueItems'),
	('{"uniqueItems": true}', '[1, true]', 'ok'),
	('{"uniqueItems": true}', '[0, false]', 'ok'),
	('{"uniqueItems": true}', '["1", 1]', 'ok'),
	('{"uniqueItems": true}', '[{"a": 1, "b": 2}, {"b": 2, "a": 1}]', ' uniqueItems'),
	('{"uniqueItems": true}', '[{"a": 1}, {"a": 2}]', 'ok'),
	('{"uniqueItems": true}', '[[1], [1]]', ' uniqueItems'),
	('{"uniqueItems": true}', '[[1], [[1]]]', 'ok'),
	('{"uniqueItems": true}', '[null, null]', ' uniqueItems'),
	('{"uniqueItems": true}', '[]', 'ok'),
	('{"uniqueItems": false}', '[1, 1]', 'ok'),
-- objects
	('{"minProperties": 1}', '{"a": 1}', 'ok'),
	('{"minProperties": 1}', '{}', ' minProperties'),
	('{"maxProperties": 1}', '{"a": 1, "b": 2}', ' maxProperties'),
	('{"maxProperties": 1}', '[1, 2]', 'ok'),
	('{"required": ["foo"]}', '{"foo": null}', 'ok'),
	('{"required": ["foo"]}', '{"bar": 1}', '/foo required'),
	('{"required": ["foo"]}', '[]', 'ok'),
	('{"required": []}', '{}', 'ok'),
	('{"required": ["b", "aa", "ccc"]}', '{"ccc": 1, "aa": 1}', '/b required'),
	('{"required": ["a/b~c"]}', '{}', '/a~1b~0c required'),
	('{"properties": {"foo": {"type": "integer"}, "bar": {"type": "string"}}}', '{"foo": 1, "bar": "baz"}', 'ok'),
	('{"properties": {"foo": {"type": "integer"}, "bar": {"type": "string"}}}', '{"foo": 1, "bar": {}}', '/bar type'),
	('{"properties": {"foo": {"type": "integer"}}}', '{"quux": []}', 'ok'),
	('{"properties": {"foo": {"type": "integer"}}}', '[]', 'ok'),
	('{"properties": {"foo": true, "bar": false}}', '{"foo": 1}', 'ok'),
	('{"properties": {"foo": true, "bar": false}}', '{"bar": 1}', '/bar properties'),
	('{"properties": {"a": {"properties": {"b": {"items": {"minimum": 2}}}}}}', '{"a": {"b": [2, 3, 1]}}', '/a/b/2 minimum'),
	('{"properties": {"a/b": {"type": "null"}}}', '{"a/b": 1}', '/a~1b type'),
	('{"properties": {"a\nb": {"type": "null"}}}', '{"a\nb": 1}', '/a?b type'),
	('{"properties": {"": {"type": "null"}}}', '{"": 1}', '/ type'),
	('{"patternProperties": {"f.*o": {"type": "integer"}}}', '{"foo": 1, "fooooo": 2, "bar": "x"}', 'ok'),
	('{"patternProperties": {"f.*o": {"type": "integer"}}}', '{"foo": 1, "foooo": "x"}', '/* type'),
	('{"patternProperties": {"a*": {"type": "integer"}, "aaa*": {"maximum": 20}}}', '{"aaaa": 31}', '/* maximum'),
	('{"patternProperties": {"^x-": false}}', '{"x-secret": 1}', '/* patternProperties'),
	('{"properties": {"foo": {"maxItems": 3}}, "patternProperties": {"f.o": {"minItems": 2}}}', '{"foo": []}', '/foo minItems'),
	('{"properties": {"foo": {}}, "additionalProperties": false}', '{"foo": 1}', 'ok'),
	('{"properties": {"foo": {}}, "additionalProperties": false}', '{"foo": 1, "bar": 2}', '/* additionalProperties'),
	('{"properties": {"foo": {}}, "patternProperties": {"^v": {}}, "additionalProperties": false}', '{"foo": 1, "vroom": 2}', 'ok'),
	('{"patternProperties": {"^v": {}}, "additionalProperties": false}', '{"foo": 1}', '/* additionalProperties'),
	('{"additionalProperties": {"type": "boolean"}}', '{"foo": true}', 'ok'),
	('{"additionalProperties": {"type": "boolean"}}', '{"foo": 1}', '/* type'),
	('{"allOf": [{"properties": {"foo": {}}}], "additionalProperties": {"type": "boolean"}}', '{"foo": 1}', '/* type'),
	('{"propertyNames": {"maxLength": 3}}', '{"f": {}, "foo": {}}', 'ok'),
	('{"propertyNames": {"maxLength": 3}}', '{"foobar": {}}', '/* maxLength'),
	('{"propertyNames": {"enum": ["foo", "bar"]}}', '{"baz": 1}', '/* enum'),
	('{"propertyNames": false}', '{"a": 1}', '/* propertyNames'),
	('{"propertyNames": false}', '{}', 'ok'),
	('{"dependentRequired": {"bar": ["foo"]}}', '{"bar": 2}', ' dependentRequired'),
	('{"dependentRequired": {"bar": ["foo"]}}', '{"bar": 2, "foo": 1}', 'ok'),
	('{"dependentRequired": {"bar": ["foo"]}}', '{"foo": 1}', 'ok'),
	('{"dependentSchemas": {"bar": {"properties": {"foo": {"type": "integer"}}}}}', '{"foo": "x"}', 'ok'),
	('{"dependentSchemas": {"bar": {"properties": {"foo": {"type": "integer"}}}}}', '{"foo": "x", "bar": 1}', '/foo type'),
	('{"dependentSchemas": {"bar": false}}', '{"bar": 1}', ' dependentSchemas'),
-- combinations
	('{"allOf": [{"required": ["a"]}, {"required": ["b"]}]}', '{"a": 1, "b": 2}', 'ok'),
	('{"allOf": [{"required": ["a"]}, {"required": ["b"]}]}', '{"a": 1}', '/b required'),
	('{"allOf": [true, false]}', '1', ' allOf'),
	('{"anyOf": [{"type": "integer"}, {"minimum": 2}]}', '1', 'ok'),
	('{"anyOf": [{"type": "integer"}, {"minimum": 2}]}', '2.5', 'ok'),
	('{"anyOf": [{"type": "integer"}, {"minimum": 2}]}', '1.5', ' anyOf'),
	('{"type": "string", "anyOf": [{"maxLength": 2}, {"minLength": 4}]}', '"foo"', ' anyOf'),
	('{"anyOf": [false, false]}', '1', ' anyOf'),
	('{"oneOf": [{"type": "integer"}, {"minimum": 2}]}', '1', 'ok'),
	('{"oneOf": [{"type": "integer"}, {"minimum": 2}]}', '3', ' oneOf'),
	('{"oneOf": [{"type": "integer"}, {"minimum": 2}]}', '1.5', ' oneOf'),
	('{"oneOf": [true, false, false]}', '1', 'ok'),
	('{"oneOf": [true, true, false]}', '1', ' oneOf'),
	('{"not": {"type": "integer"}}', '"foo"', 'ok'),
	('{"not": {"type": "integer"}}', '1', ' not'),
	('{"not": {"not": {"type": "integer"}}}', '1', 'ok'),
	('{"not": true}', '1', ' not'),
	('{"not": false}', '1', 'ok'),
	('{"properties": {"a": {"not": {}}}}', '{"a": 1}', '/a not'),
	('{"if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"multipleOf": 2}}', '20', 'ok'),
	('{"if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"multipleOf": 2}}', '12', ' multipleOf'),
	('{"if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"multipleOf": 2}}', '4', 'ok'),
	('{"if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"multipleOf": 2}}', '3', ' multipleOf'),
	('{"if": {"const": 1}}', '1', 'ok'),
	('{"then": {"const": 0}, "else": {"const": 0}}', '1', 'ok'),
	('{"if": true, "then": false}', '1', ' then'),
	('{"if": false, "then": true, "else": false}', '1', ' else'),
-- references
	('{"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}', '1', 'ok'),
	('{"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}', '"x"', ' type'),
	('{"$ref": "#/$defs/a", "maximum": 3, "$defs": {"a": {"type": "integer"}}}', '4', ' maximum'),
	('{"properties": {"foo": {"$ref": "#"}}, "additionalProperties": false}', '{"foo": {"foo": {}}}', 'ok'),
	('{"properties": {"foo": {"$ref": "#"}}, "additionalProperties": false}', '{"foo": {"bar": 1}}', '/foo/* additionalProperties'),
	('{"properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}}', '{"b": "x"}', '/b type'),
	('{"prefixItems": [{"type": "integer"}, {"$ref": "#/prefixItems/0"}]}', '[1, "x"]', '/1 type'),
	('{"properties": {"x": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": {"type": "null"}}}', '{"x": 1}', '/x type'),
	('{"properties": {"x": {"$ref": "#/$defs/a~0b"}}, "$defs": {"a~b": {"type": "null"}}}', '{"x": 1}', '/x type'),
	('{"properties": {"x": {"$ref": "#/$defs/a%25b"}}, "$defs": {"a%b": {"type": "null"}}}', '{"x": 1}', '/x type'),
	('{"properties": {"x": {"$ref": "#/$defs/a%22b"}}, "$defs": {"a\"b": {"type": "null"}}}', '{"x": null}', 'ok'),
	('{"$ref": "#/$defs/c", "$defs": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/a"}, "c": {"$ref": "#/$defs/b"}}}', '"x"', ' type'),
	('{"$ref": "#/$defs/no", "$defs": {"no": false}}', '1', ' $ref'),
	('{"$ref": "#/$defs/yes", "$defs": {"yes": true}}', '1', 'ok'),
	('{"properties": {"$ref": {"type": "string"}}}', '{"$ref": 1}', '/$ref type'),
	('{"$defs": {"tree": {"type": "object", "required": ["v"], "properties": {"v": {"type": "number"}, "kids": {"items": {"$ref": "#/$defs/tree"}}}}}, "$ref": "#/$defs/tree"}',
		'{"v": 1, "kids": [{"v": 2}, {"v": 3, "kids": [{"v": 4}, {}]}]}', '/kids/1/kids/1/v required'),
	('{"$ref": "#/examples/0", "examples": [{"type": "integer"}]}', '"x"', ' type'),
-- what says nothing of a value
	('{"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/order", "$comment": "x", "title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": true, "readOnly": false, "writeOnly": false, "format": "date-time", "contentEncoding": "base64", "contentMediaType": "text/plain"}',
		'{"a": 1}', 'ok');

SELECT is(pg_temp.verdict(schema, payload), verdict, format('%s: %s', left(schema::text, 100), left(payload::text, 60)))
	FROM example ORDER BY n;
SELECT cmp_ok(count(*), '>=', 200::bigint, 'examples') FROM example;

-- ---- a message tells nothing of the payload ----

SELECT jobq.alter_queue('schema', '{"schema": {"properties": {"card": {"type": "integer", "maximum": 9}, "kind": {"enum": ["a"]}},
	"patternProperties": {"^x": {"type": "null"}}, "additionalProperties": {"type": "null"}, "propertyNames": {"maxLength": 20}}}') AS x \gset
SELECT unalike(pg_temp.told(format('enqueue(''schema'', %L)', payload)), '%4711%', payload)
	FROM unnest(ARRAY['{"card": 4711}', '{"card": "4711"}', '{"kind": "4711"}', '{"4711": 1}', '{"x4711": 1}',
		'{"471147114711471147114711": null}', '[{"4711": 4711}]']) payload;
SELECT is(pg_temp.told('enqueue(''schema'', ''{"card": 4711}'')'),
	'JQ016|the payload breaks the schema of queue "schema"|At "/card" it breaks the keyword "maximum".|' ||
	'SELECT options -> ''schema'' FROM jobq.queues shows the schema; change the payload, or the schema with jobq.alter_queue().',
	'the message');
SELECT jobq.alter_queue('schema', jsonb_build_object('schema', jsonb_build_object('properties',
	jsonb_build_object(repeat('long', 50), '{"type": "null"}'::jsonb)))) AS x \gset
SELECT alike(pg_temp.told(format('enqueue(''schema'', %L)', jsonb_build_object(repeat('long', 50), 1))),
	'%At "/longlonglonglonglonglonglonglonglonglong..." it breaks%', 'long names are cut');

-- ---- all ways to enqueue ----

SELECT jobq.alter_queue('schema', '{"schema": {"required": ["a"]}}') AS x \gset
SELECT count(*) AS before FROM jobq.jobs WHERE queue = 'schema' \gset
SELECT is(pg_temp.try(call), 'JQ016', call) FROM unnest(ARRAY['enqueue(''schema'')',
	'enqueue_many(''schema'', ''{"{\"a\": 1}", "{}"}'')', 'enqueue_unique(''schema'', ''{}'', unique_key => ''k'')',
	'enqueue_jobs(''[{"queue": "schema", "payload": {"a": 1}}, {"queue": "schema"}]'')',
	'schedule(''s'', ''0 0 1 1 *'', ''schema'')']) call;
SELECT alike(pg_temp.told('enqueue_many(''schema'', ''{"{\"a\": 1}", "{}"}'')'), '%|Job 2 of the call: At "/a" it%', 'which one');
SELECT alike(pg_temp.told('enqueue_jobs(''[{"queue": "schema", "payload": {"a": 1}}, {"queue": "schema"}]'')'),
	'%|Job 2 of the call: At "/a" it%', 'which one');
SELECT is(count(*), :before::bigint, 'nothing of a refused call stays') FROM jobq.jobs WHERE queue = 'schema';
SELECT jobq.schedule('s', '0 0 1 1 *', 'schema', '{"a": 1}') AS x \gset
SELECT is(pg_temp.try('run_schedule(''s'')'), 'ok', 'a schedule');
SELECT jobq.alter_queue('schema', '{"schema": {"required": ["b"]}}') AS x \gset
SELECT is(pg_temp.try('run_schedule(''s'')'), 'JQ016', 'and after the schema has changed');
SELECT jobq.unschedule('s') AS x \gset
-- what is in the queue is not checked again
SELECT jobq.create_queue('schema copy', '{"max_attempts": 1, "dead_letter": "schema dead"}') AS x,
	jobq.alter_queue('schema dead', '{"schema": false}') AS y, jobq.enqueue('schema copy', '{"z": 1}') AS job \gset
SELECT is(jobq.fail(id, lease, 'x'), 'dead', 'into a dead-letter queue that takes nothing') FROM jobq.dequeue('schema copy');
SELECT jobq.alter_queue('schema copy', '{"schema": false}') AS x \gset
SELECT is(jobq.redrive('schema dead'), 1::bigint, 'and back from there');

-- ---- null and back ----

SELECT jobq.alter_queue('schema', '{"schema": null}') AS x \gset
SELECT is(pg_temp.try('enqueue(''schema'')'), 'ok', 'no schema any more');
BEGIN;
SELECT jobq.alter_queue('schema', '{"schema": false}') AS x \gset
SELECT is(pg_temp.try('enqueue(''schema'')'), 'JQ016', 'changed in this transaction');
SAVEPOINT s;
SELECT jobq.alter_queue('schema', '{"schema": true}') AS x \gset
SELECT is(pg_temp.try('enqueue(''schema'')'), 'ok', 'and again');
ROLLBACK TO s;
SELECT is(pg_temp.try('enqueue(''schema'')'), 'JQ016', 'back to a savepoint');
ROLLBACK;
SELECT is(pg_temp.try('enqueue(''schema'')'), 'ok', 'and as if it had never been');

-- ---- what is not a schema: JQ007, naming the place ----

CREATE TEMP TABLE wrong (n int GENERATED ALWAYS AS IDENTITY, schema jsonb, place text);
INSERT INTO wrong (schema, place) VALUES
	('1', 'schema'), ('"object"', 'schema'), ('[]', 'schema'),
	('{"unevaluatedProperties": false}', 'schema#/unevaluatedProperties'),
	('{"$anchor": "a"}', 'schema#/$anchor'), ('{"$dynamicRef": "#a"}', 'schema#/$dynamicRef'),
	('{"definitions": {}}', 'schema#/definitions'), ('{"Type": "string"}', 'schema#/Type'),
	('{"dependencies": {}}', 'schema#/dependencies'), ('{"additionalItems": true}', 'schema#/additionalItems'),
	('{"$schema": "http://json-schema.org/draft-07/schema#"}', 'schema#/$schema'),
	('{"properties": {"a": {"$id": "b"}}}', 'schema#/properties/a/$id'),
	('{"type": "text"}', 'schema#/type'), ('{"type": []}', 'schema#/type'), ('{"type": ["string", 1]}', 'schema#/type'),
	('{"type": null}', 'schema#/type'), ('{"enum": {}}', 'schema#/enum'),
	('{"minimum": "1"}', 'schema#/minimum'), ('{"maximum": null}', 'schema#/maximum'),
	('{"multipleOf": 0}', 'schema#/multipleOf'), ('{"multipleOf": -1}', 'schema#/multipleOf'), ('{"multipleOf": 1e-101}', 'schema#/multipleOf'),
	('{"maxLength": -1}', 'schema#/maxLength'), ('{"maxLength": 1.5}', 'schema#/maxLength'), ('{"minItems": "1"}', 'schema#/minItems'),
	('{"maxItems": 1e20}', 'schema#/maxItems'), ('{"uniqueItems": 1}', 'schema#/uniqueItems'),
	('{"required": "a"}', 'schema#/required'), ('{"required": [1]}', 'schema#/required/0'), ('{"required": ["a", "a"]}', 'schema#/required'),
	('{"dependentRequired": {"a": "b"}}', 'schema#/dependentRequired/a'),
	('{"properties": []}', 'schema#/properties'), ('{"properties": {"a": 1}}', 'schema#/properties/a'),
	('{"properties": {"a/b": {"items": [true]}}}', 'schema#/properties/a~1b/items'),
	('{"allOf": []}', 'schema#/allOf'), ('{"anyOf": {}}', 'schema#/anyOf'), ('{"oneOf": [1]}', 'schema#/oneOf/0'),
	('{"prefixItems": []}', 'schema#/prefixItems'), ('{"not": null}', 'schema#/not'),
	('{"title": 1}', 'schema#/title'), ('{"format": {}}', 'schema#/format'), ('{"examples": 1}', 'schema#/examples'), ('{"deprecated": 0}', 'schema#/deprecated'),
	('{"pattern": "("}', 'schema#/pattern'), ('{"pattern": 1}', 'schema#/pattern'), ('{"pattern": "[z-a]"}', 'schema#/pattern'),
	('{"pattern": "(a)\\1"}', 'schema#/pattern'), ('{"pattern": "^(?=.*a)b"}', 'schema#/pattern'), ('{"pattern": "(?<!a)b"}', 'schema#/pattern'),
	('{"patternProperties": {"[": {}}}', 'schema#/patternProperties/['),
	('{"$ref": 1}', 'schema#/$ref'), ('{"$ref": "#/$defs/a"}', 'schema#/$ref'), ('{"$ref": "other.json"}', 'schema#/$ref'),
	('{"$ref": "#a"}', 'schema#/$ref'), ('{"$ref": "https://example.com/s"}', 'schema#/$ref'), ('{"$ref": "#/%zz"}', 'schema#/$ref'),
	('{"$ref": "#/%00"}', 'schema#/$ref'), ('{"$ref": "#/$defs/a~2", "$defs": {"a~2": {}}}', 'schema#/$ref'),
	('{"title": "x", "$ref": "#/title"}', 'schema#/$ref'),
	('{"$ref": "#/examples/0", "examples": [{"type": "no"}]}', 'schema#/examples/0/type'),
	('{"$ref": "#/prefixItems/01", "prefixItems": [true, true]}', 'schema#/$ref'),
	('{"$ref": "#"}', 'schema#/$ref'), ('{"allOf": [{"$ref": "#"}]}', 'schema#/allOf/0/$ref'),
	('{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}', 'schema#/$defs/%/$ref'),
	('{"items": {"if": {"anyOf": [{"$ref": "#/items"}]}}}', 'schema#/items/if/anyOf/0/$ref'),
	('{"dependentSchemas": {"a": {"$ref": "#"}}}', 'schema#/dependentSchemas/a/$ref');
SELECT alike(pg_temp.told(format('alter_queue(''schema'', %L)', jsonb_build_object('schema', schema))),
	'JQ007|invalid value for "' || place || '"|%', format('refused: %s', left(schema::text, 100))) FROM wrong ORDER BY n;
SELECT is(pg_temp.try('enqueue(''schema'')'), 'ok', 'none of them was set');
SELECT alike(pg_temp.told('create_queue(''never'', ''{"schema": {"typ": 1}}'')'), 'JQ007|%schema#/typ%', 'nor is a queue created with one');

-- bounds: size, nesting, height, patterns
CREATE FUNCTION pg_temp.nested(open text, middle text, shut text, n int) RETURNS text LANGUAGE sql AS $$
	SELECT repeat(open, n) || middle || repeat(shut, n)
$$;
CREATE FUNCTION pg_temp.set_schema(schema text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('alter_queue(''schema'', %L)', '{"schema": ' || schema || '}'))
$$;
SELECT is(pg_temp.set_schema(pg_temp.nested('{"items":', 'true', '}', 101)), 'ok', 'nested 101 schemas deep');
SELECT is(pg_temp.set_schema(pg_temp.nested('{"items":', 'true', '}', 102)), 'JQ007', 'and one more');
SELECT is(pg_temp.set_schema(pg_temp.nested('{"not":', 'true', '}', 1000)), 'JQ007', 'and a thousand');
SELECT is(pg_temp.set_schema(format('{"title": %s}', to_json(repeat('x', 65000)))), 'ok', '64 kB');
SELECT is(pg_temp.set_schema(format('{"title": %s}', to_json(repeat('x', 65536)))), 'JQ007', 'and one more');
SELECT is(pg_temp.set_schema(format('{"pattern": %s}', to_json(repeat('x', 900)))), 'ok', 'a long pattern');
SELECT is(pg_temp.set_schema(format('{"pattern": %s}', to_json(repeat('x', 1001)))), 'JQ007', 'a longer one');
SELECT is(pg_temp.set_schema('{"pattern": "(((a{1,100}){1,100}){1,100}){1,100}"}'), 'JQ007', 'one that explodes');
SELECT is(pg_temp.set_schema('{"pattern": "^((a|b){1,255}){1,255}$"}'), 'JQ007', 'another');
SELECT is(pg_temp.set_schema(format('{"pattern": "(a|b)*a%s"}', repeat('(a|b){250}', 4))), 'JQ007', 'one with too large an automaton');
-- a chain of references, each within the other
SELECT string_agg(format('"d%s": {"$ref": "#/$defs/d%s"}', i, i + 1), ', ') AS chain FROM generate_series(1, 98) i \gset
SELECT is(pg_temp.set_schema(format('{"$ref": "#/$defs/d1", "$defs": {%s, "d99": {"type": "integer"}}}', :'chain')), 'ok', 'a hundred, one within the other');
SELECT is(pg_temp.set_schema(format('{"allOf": [{"$ref": "#/$defs/d1"}], "$defs": {%s, "d99": {"type": "integer"}}}', :'chain')), 'JQ007', 'and one more');

-- ---- hostile documents and schemas end soon ----

CREATE FUNCTION pg_temp.ms(schema text, payload text, OUT verdict text, OUT ms float8) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz;
BEGIN
	PERFORM jobq.alter_queue('schema', ('{"max_payload_bytes": 268435455, "schema": ' || schema || '}')::jsonb);
	began := clock_timestamp();
	verdict := pg_temp.try(format('enqueue(''schema'', %L)', payload));
	ms := extract(epoch FROM clock_timestamp() - began) * 1000;
END
$$;
CREATE TEMP TABLE hostile (name text, schema text, payload text, verdict text, ms float8);
-- every level doubles
SELECT string_agg(format('"d%s": {"anyOf": [{"$ref": "#/$defs/d%s"}, {"$ref": "#/$defs/d%s"}]}', i, i + 1, i + 1), ', ') AS doubling
	FROM generate_series(1, 40) i \gset
INSERT INTO hostile (name, schema, payload) VALUES
	('doubling', format('{"$ref": "#/$defs/d1", "$defs": {%s, "d41": {"type": "integer"}}}', :'doubling'), '"x"'),
	('doubling, negated', format('{"not": {"$ref": "#/$defs/d1"}, "$defs": {%s, "d41": {"type": "integer"}}}', :'doubling'), '"x"'),
	('doubling in elements', format('{"items": {"$ref": "#/$defs/d1"}, "$defs": {%s, "d41": {"type": "integer"}}}', :'doubling'), '["x", "y"]'),
	('tree', '{"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "contains": {"$ref": "#"}, "type": "array"}', pg_temp.nested('[', '1', ']', 60)),
	('huge numbers', '{"items": {"not": {"multipleOf": 0.1234567890123456789}}}', '[' || repeat('1e100000,', 300) || '1]'),
	('automaton', '{"items": {"pattern": "^(a|b)*a(a|b){201}$"}}', to_json(array_fill(repeat('ab', 8000), '{10}'))::text),
	('large enum', '{"items": {"enum": ' || (SELECT json_agg(i) FROM generate_series(1, 5000) i) || '}}', to_json(array_fill(5000, '{5000}'))::text);
UPDATE hostile SET (verdict, ms) = (SELECT v.verdict, v.ms FROM pg_temp.ms(schema, payload) v);
SELECT is(verdict, 'JQ016', name) FROM hostile;
SELECT cmp_ok(ms, '<', 5000::float8, name || ' is soon over') FROM hostile;
SELECT is(pg_temp.set_schema(schema), 'ok', name) FROM hostile WHERE name = 'doubling';
SELECT alike(pg_temp.told('enqueue(''schema'', ''"x"'')'), 'JQ016|checking the payload against the schema of queue "schema" takes too long|%', 'what it says');
-- the number of steps follows the payload: what is large and simple passes
SELECT is(v.verdict, 'ok', name) FROM (VALUES
	('a megabyte of text', '{"type": "string", "maxLength": 1000000}', to_json(repeat('ä', 1000000))::text),
	('many elements', '{"items": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]}, "uniqueItems": true}',
		(SELECT json_agg(i) FROM generate_series(1, 200000) i)::text),
	('many keys', '{"propertyNames": {"pattern": "^k[0-9]+$"}, "additionalProperties": {"type": "boolean"}}',
		(SELECT json_object_agg('k' || i, true) FROM generate_series(1, 50000) i)::text),
	('many patterns', '{"items": {"pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"}}',
		(SELECT json_agg(gen_random_uuid()) FROM generate_series(1, 20000) i)::text)) AS t(name, schema, payload),
	pg_temp.ms(schema, payload) v;
SELECT is(v.verdict, 'JQ016', 'strings that are matched are bounded') FROM pg_temp.ms('{"pattern": "x"}', to_json(repeat('x', 32769))::text) v;
SELECT is(v.verdict, 'ok', 'by that') FROM pg_temp.ms('{"pattern": "x"}', to_json(repeat('x', 32768))::text) v;
-- the time is that of its size: twice the exponent costs nothing more
SELECT string_agg(format('"d%s": {"anyOf": [{"$ref": "#/$defs/d%s"}, {"$ref": "#/$defs/d%s"}]}', i, i + 1, i + 1), ', ') AS doubling
	FROM generate_series(1, 14) i \gset
SELECT cmp_ok(max(h.ms), '<', 20 * greatest(min(v.ms), 5), 'forty doublings against fourteen')
	FROM hostile h, pg_temp.ms(format('{"$ref": "#/$defs/d1", "$defs": {%s, "d15": {"type": "integer"}}}', :'doubling'), '"x"') v
	WHERE h.name = 'doubling';
-- no crash, whatever the limit on nesting
SELECT ok(v.verdict IN ('ok', '54001'), n || ' levels deep: ' || v.verdict)
	FROM unnest(ARRAY[3000, 10000, 100000]) n, pg_temp.ms('{"items": {"$ref": "#"}}', pg_temp.nested('[', '', ']', n)) v;
SELECT is(pg_temp.try('enqueue(''schema'', ''[]'')'), 'ok', 'and it goes on');

SELECT jobq.drop_queue(q, true) AS x FROM unnest(ARRAY['schema copy', 'schema dead', 'schema']) q;
SELECT * FROM finish();
