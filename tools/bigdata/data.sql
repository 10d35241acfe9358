-- The data set of the measurements, made set by set. $words are put in by generate.go.

--: indexes
SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = current_schema() AND tablename IN ('activities', 'labels', 'profiles', 'phones', 'documents')
  AND indexname NOT LIKE '%\_pkey'
  AND indexname NOT IN ('labels_user_id', 'profiles_user_id') -- which the triggers that count ask
ORDER BY indexname DESC

--: users
INSERT INTO users (id, uid, email, password_digest, role, state, level, otp, data, referral_id, created_at, updated_at)
OVERRIDING USER VALUE
-- Most people came in the order of their ids; one in fifty was moved in from elsewhere, with the date of that time. Half
-- were last changed in their first days, the others at any time since.
SELECT id, 'ID' || upper(lpad(to_hex(id * 2654435761 % 1099511627776), 10, '0')), 'user' || id || '@example.com',
  '$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b/dWRWJTmaaJObG', role, state,
  CASE WHEN state = 'pending' THEN 0 WHEN rank < 0.45 THEN 1 WHEN rank < 0.70 THEN 2 ELSE 3 END,
  rank > 0.88, CASE WHEN rank < 0.3 THEN '{"language":"en"}' END,
  CASE WHEN rank > 0.9 AND id > 1000 THEN 1 + (id * 7919) % 1000 END,
  created_at,
  date_trunc('second', CASE WHEN late < 0.55 THEN least(created_at + interval '3 days' * late, $end)
    ELSE created_at + ($end - created_at) * (late - 0.55) / 0.45 END)
FROM (
  SELECT id, rank, late,
    CASE WHEN id % 5000 = 1 THEN (ARRAY['superadmin', 'admin', 'accountant', 'compliance', 'technical', 'support'])[1 + (id / 5000) % 6]
      WHEN kind < 0.978 THEN 'member' WHEN kind < 0.988 THEN 'trader' WHEN kind < 0.994 THEN 'broker'
      WHEN kind < 0.998 THEN 'partner' ELSE 'manager' END AS role,
    CASE WHEN id % 5000 = 1 OR fate < 0.72 THEN 'active' WHEN fate < 0.92 THEN 'pending' WHEN fate < 0.95 THEN 'banned'
      WHEN fate < 0.985 THEN 'deleted' ELSE 'locked' END AS state,
    date_trunc('second', $end - interval '365 days' * CASE WHEN moved < 0.02 THEN moved * 50 ELSE 1 - power(id::float / $users, 0.9) END) AS created_at
  FROM (SELECT id, random() AS kind, random() AS fate, random() AS rank, random() AS late, random() AS moved
    FROM generate_series(1::bigint, $users) AS id) AS drawn
) AS people ORDER BY id

--: labels
INSERT INTO labels (user_id, key, value, scope, created_at, updated_at)
SELECT u.id, l.key, l.value, l.scope, u.created_at,
  date_trunc('second', u.created_at + ($end - u.created_at) * l.age)
FROM (SELECT *, random() AS a, random() AS b, random() AS c FROM users) AS u CROSS JOIN LATERAL (VALUES
  (u.level >= 1, 'email', 'verified', 'private', 0.0),
  (u.level >= 2, 'phone', 'verified', 'private', u.b * 0.1),
  -- The queue of the staff: what waits is young, more often than not.
  (u.level >= 2, 'document', CASE WHEN u.level >= 3 THEN CASE WHEN u.a < 0.04 THEN 'replaced' ELSE 'verified' END
    WHEN u.a < 0.10 THEN 'pending' ELSE 'rejected' END, 'private', sqrt(u.b)),
  (u.level >= 2, 'profile', CASE u.level WHEN 3 THEN 'verified' ELSE 'submitted' END, 'private', u.c * 0.2),
  (u.otp, 'otp', 'enabled', 'private', u.b),
  (u.c < 0.3, 'newsletter', CASE WHEN u.a < 0.8 THEN 'yes' ELSE 'no' END, 'public', u.b),
  (u.c > 0.98, 'email', 'verified', 'public', u.b),
  (u.c > 0.7, 'theme', 'colour ' || (u.id % 1000), 'public', u.b)
) AS l (given, key, value, scope, age) WHERE l.given ORDER BY u.id

--: activities
INSERT INTO activities (user_id, target_uid, category, user_ip, user_ip_country, user_agent, topic, action, result, data, count, created_at)
SELECT CASE WHEN staff THEN 1 + 5000 * floor(greatest($users / 5000, 1) * power(who, 2))::bigint
    ELSE 1 + floor($users * power(who, 3))::bigint END,
  CASE WHEN staff AND topic = 'users' AND whom < 0.9
    THEN 'ID' || upper(lpad(to_hex((1 + floor($users * power(whom / 0.9, 3))::bigint) * 2654435761 % 1099511627776), 10, '0')) END,
  CASE WHEN staff THEN 'admin' ELSE 'user' END,
  '203.0.' || n % 113 || '.' || n % 251, CASE WHEN whom < 0.5 THEN 'UA' ELSE 'US' END,
  (ARRAY['Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36',
    'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1',
    'Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0', 'python-requests/2.32'])[1 + n % 4],
  topic, action,
  CASE WHEN NOT staff THEN CASE WHEN action IN ('signup', 'logout') OR how < 0.88 THEN 'succeed' ELSE 'failed' END
    WHEN how < 0.92 THEN 'succeed' ELSE 'denied' END,
  CASE WHEN staff THEN '{"path":"api/v2/barong/admin/' || topic || '","page":"1","limit":"100"}'
    WHEN how >= 0.88 THEN '{"reason":"Invalid Email or Password"}' END,
  1,
  -- A few rows are late: they came from elsewhere.
  date_trunc('second', $end - interval '365 days' * CASE WHEN late < 0.002 THEN late * 500 ELSE 1 - n::float / $activities END
    + interval '2 seconds' * late - interval '2 seconds')
FROM (
  SELECT n, who, whom, how, late, what < 0.15 AS staff,
    CASE
      WHEN what < 0.09 THEN 'users' WHEN what < 0.10 THEN 'permissions' WHEN what < 0.105 THEN 'restrictions'
      WHEN what < 0.115 THEN 'activities' WHEN what < 0.12 THEN 'metrics' WHEN what < 0.125 THEN 'profiles'
      WHEN what < 0.13 THEN 'api_keys' WHEN what < 0.1301 THEN 'levels' WHEN what < 0.14 THEN 'general'
      WHEN what < 0.145 THEN 'wallets' WHEN what < 0.15 THEN 'markets'
      WHEN what < 0.80 THEN 'session' WHEN what < 0.90 THEN 'account' WHEN what < 0.94 THEN 'password'
      WHEN what < 0.97 THEN 'otp' WHEN what < 0.985 THEN 'api_key' WHEN what < 0.9995 THEN 'phone' ELSE 'user' END AS topic,
    CASE
      WHEN what < 0.15 THEN (ARRAY['update', 'update', 'update', 'update', 'create', 'create', 'read', 'delete'])[1 + floor(8 * kind)::int]
      WHEN what < 0.80 THEN CASE WHEN kind < 0.62 THEN 'login' WHEN kind < 0.77 THEN 'login::2fa' ELSE 'logout' END
      WHEN what < 0.90 THEN 'signup'
      WHEN what < 0.94 THEN (ARRAY['password change', 'request password reset', 'password reset'])[1 + floor(3 * kind)::int]
      WHEN what < 0.97 THEN (ARRAY['request QR code for 2FA', 'enable 2FA', 'enable 2FA', 'disable 2FA'])[1 + floor(4 * kind)::int]
      WHEN what < 0.985 THEN (ARRAY['create', 'create', 'update', 'delete'])[1 + floor(4 * kind)::int]
      WHEN what < 0.9995 THEN 'verify' ELSE 'delete' END AS action
  FROM (SELECT n, random() AS who, random() AS whom, random() AS how, random() AS late, random() AS what, random() AS kind
    FROM generate_series($first::bigint, $last) AS n) AS drawn
) AS drawn ORDER BY n
