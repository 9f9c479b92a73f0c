-- Everything that migrations make, of any kind, but partitions and chunks.
WITH ours AS (
    SELECT c.oid, c.relname, c.relkind, c.relacl, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('register', 'store', 'store_meta', 'alarm', 'public') AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
SELECT 'column', nspname || '.' || relname, attname::text, format_type(atttypid, atttypmod) || ' ' || attnotnull
FROM ours JOIN pg_attribute ON attrelid = oid WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm')
UNION ALL SELECT 'index', nspname || '.' || relname, '', regexp_replace(pg_get_indexdef(oid), '_hyper_\d+', '') FROM ours
WHERE relkind IN ('i', 'I')
UNION ALL SELECT 'rights', nspname || '.' || relname, '', (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(relacl) a)
FROM ours WHERE relkind IN ('r', 'p', 'v', 'm')
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN ours ON ours.oid = conrelid
UNION ALL SELECT 'function', n.nspname || '.' || proname, pg_get_function_identity_arguments(p.oid), md5(pg_get_functiondef(p.oid))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('register', 'store', 'alarm')
ORDER BY 1, 2, 3, 4
