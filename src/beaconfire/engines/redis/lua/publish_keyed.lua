-- Announces a publication without history, once for each idempotency key.
--
-- KEYS  1 receipt of the key
-- ARGV  1 name of the announcement  2 command that announces  3 announcement  4 nonce  5 ttl of the key in ms
-- Returns "" or "idempotency".
if redis.call('SET', KEYS[1], '0  ' .. ARGV[4], 'NX', 'PX', ARGV[5]) then
  redis.call(ARGV[2], ARGV[1], ARGV[3])
  return ''
end
return string.match(redis.call('GET', KEYS[1]), '%S+$') == ARGV[4] and '' or 'idempotency'
