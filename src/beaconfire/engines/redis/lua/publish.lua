-- Stores a publication and announces it, or finds out why it must not. One atomic step.
--
-- KEYS  1 meta (hash)  2 stream  3 receipt of the idempotency key  4 order of producers (sorted set).
--       3 and 4 are used only with an idempotency key or a producer.
-- ARGV  1 name of the announcement  2 command that announces  3 body, which starts with the nonce
--       4 lineage of this server  5 size  6 ttl in ms  7 meta ttl in ms  8 "1" if the outcome of the first try is unknown
--       9 version  10 version epoch  11 producer  12 its number  13 "1" with an idempotency key  14 ttl of the key in ms
--       15 how many producers are remembered  16 how many receipts each of them has
-- Returns {offset, epoch, outcome}. The outcome is "" or "idempotency", "version", "producer", "unknown", or
-- "sequence", then the offset is the expected number.
--
-- Fields of meta: e epoch, s last offset, l lineage, x expiry of the last publication, u expiry of the position by
-- its last use, xk and mk when the keys expire (a little later than they must, so that few publishes change this), v and ve version, j the intervals of offsets that no server of this history has given out, j0 the lowest offset from
-- which `j` is complete, p:<producer> last number, r:<slot>:<producer> number and offset of a publication, pn the number of producers.
local meta, stream = KEYS[1], KEYS[2]
local body, lineage, size, ttl = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local producer, repeated = ARGV[11], ARGV[8] == '1'
local nonce = string.sub(body, 1, 12)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(number)
  return string.format('%.0f', number)
end

local m = redis.call('HMGET', meta, 'e', 's', 'l', 'x', 'xk', 'mk', 'v', 've', 'u')
local epoch, top = m[1], tonumber(m[2] or 0)
local fresh = not epoch
if fresh then
  epoch = nonce
  redis.call('DEL', stream)
  m = {}
elseif repeated and ARGV[13] ~= '1' and producer == '' then
  -- The first try may have been stored: then one of the last publications has the nonce.
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1000)
  for _, entry in ipairs(last) do
    if string.sub(entry[2][2], 1, 12) == nonce then
      return {string.match(entry[1], '%d+'), epoch, ''}
    end
  end
  if #last >= math.min(size, 1000) then
    return {'0', '', 'unknown'} -- not stored, or stored and removed since
  end
end

local next_number
if producer ~= '' then
  local last = tonumber(redis.call('HGET', meta, 'p:' .. producer) or 0)
  local number = tonumber(ARGV[12])
  if number > last + 1 then
    return {text(last + 1), epoch, 'sequence'}
  elseif number <= last then
    local kept = redis.call('HGET', meta, 'r:' .. text(number % tonumber(ARGV[16])) .. ':' .. producer)
    if kept then
      local kept_number, offset = string.match(kept, '(%d+) (%d+)')
      if tonumber(kept_number) == number then
        return {offset, epoch, repeated and '' or 'producer'}
      end
    end
    return {'0', '', 'producer'}
  end
  next_number = number
end

local set = fresh and {'e', epoch, 's', '0', 'l', lineage} or {} -- changes of meta

local function take_number(offset)
  if not next_number then return end
  local order = KEYS[4]
  local name = 'r:' .. text(next_number % tonumber(ARGV[16])) .. ':' .. producer
  redis.call('HSET', meta, 'p:' .. producer, text(next_number), name, text(next_number) .. ' ' .. offset)
  local turn = redis.call('HINCRBY', meta, 'pn', 1)
  redis.call('ZADD', order, turn, producer)
  if redis.call('ZCARD', order) > tonumber(ARGV[15]) then
    local forgotten = redis.call('ZPOPMIN', order)[1]
    local names = {'p:' .. forgotten}
    for slot = 0, tonumber(ARGV[16]) - 1 do
      names[#names + 1] = 'r:' .. text(slot) .. ':' .. forgotten
    end
    redis.call('HDEL', meta, unpack(names))
  end
  redis.call('PEXPIRE', order, 4 * math.max(tonumber(ARGV[7]), ttl) + 60000)
end

-- The position is kept after its last use, and as long as any publication. Writes `set`.
local function keep_meta(last_expires)
  local used = tonumber(m[9] or 0)
  if now + tonumber(ARGV[7]) > used then
    used = now + tonumber(ARGV[7]) + math.min(500, math.floor(tonumber(ARGV[7]) / 100))
    set[#set + 1] = 'u'
    set[#set + 1] = text(used)
  end
  local kept = math.max(used, last_expires + math.min(500, math.floor(ttl / 100)))
  local changes = math.max(used, last_expires) > tonumber(m[6] or 0)
  if changes then
    set[#set + 1] = 'mk'
    set[#set + 1] = text(kept)
  end
  if #set > 0 then redis.call('HSET', meta, unpack(set)) end
  if changes then redis.call('PEXPIREAT', meta, text(kept)) end
end

-- A suppressed publish uses the stream, and takes its number and its key.
local function suppress(offset, kept_epoch, reason)
  keep_meta(tonumber(m[4] or 0))
  take_number(offset)
  return {offset, kept_epoch, reason}
end

if ARGV[13] == '1' then
  local kept = redis.call('GET', KEYS[3])
  if kept then
    local offset, kept_epoch, kept_nonce = string.match(kept, '(%d+) (%S*) (%S+)')
    if kept_nonce == nonce then
      return {offset, kept_epoch, ''}
    end
    return suppress(offset, kept_epoch, 'idempotency')
  end
end

local version = ARGV[9]
if version ~= '0' then
  local last = m[7] or '0'
  -- As text, because numbers of 64 bits do not fit into numbers of Lua.
  if m[8] == ARGV[10] and (#version < #last or (#version == #last and version <= last)) then
    if ARGV[13] == '1' then
      redis.call('SET', KEYS[3], text(top) .. ' ' .. epoch .. ' ' .. nonce, 'PX', ARGV[14])
    end
    return suppress(text(top), epoch, 'version')
  end
  set[#set + 1] = 'v'
  set[#set + 1] = version
  set[#set + 1] = 've'
  set[#set + 1] = ARGV[10]
end

local offset = top + 1
if not fresh and m[3] ~= lineage then
  -- This server may lack what another one has acknowledged. Its offsets are never given out again: see `engines.redis`.
  offset = math.max(top + 1048576, now * 1024)
  local gaps = redis.call('HGET', meta, 'j') or ''
  gaps = gaps .. text(top) .. ':' .. text(offset) .. ';'
  local _, count = string.gsub(gaps, ';', '')
  if count > 8 then
    local complete, rest = string.match(gaps, '^%d+:(%d+);(.*)$')
    gaps = rest
    set[#set + 1] = 'j0'
    set[#set + 1] = complete
  end
  set[#set + 1] = 'j'
  set[#set + 1] = gaps
  set[#set + 1] = 'l'
  set[#set + 1] = lineage
end

local expires = now + ttl
if m[4] and expires < tonumber(m[4]) then
  -- A shorter time to live, or the clock was set back. History has no gap, so what is older expires with this one.
  local older = redis.call('XRANGE', stream, '-', '+')
  redis.call('DEL', stream)
  for _, entry in ipairs(older) do
    local at, entry_expires = string.match(entry[1], '(%d+)-(%d+)')
    if tonumber(entry_expires) > now then
      redis.call('XADD', stream, at .. '-' .. text(math.min(tonumber(entry_expires), expires)), 'd', entry[2][2])
    else
      redis.call('DEL', stream)
    end
  end
  m[5] = nil
end
local offset_text = text(offset)
redis.call('XADD', stream, 'MAXLEN', size, offset_text .. '-' .. text(expires), 'd', body)
set[#set + 1] = 's'
set[#set + 1] = offset_text
set[#set + 1] = 'x'
set[#set + 1] = text(expires)
if expires > tonumber(m[5] or 0) then
  local kept = expires + math.min(1000, math.floor(ttl / 10))
  redis.call('PEXPIREAT', stream, text(kept))
  set[#set + 1] = 'xk'
  set[#set + 1] = text(kept)
end
keep_meta(expires)
take_number(offset_text)
if ARGV[13] == '1' then
  redis.call('SET', KEYS[3], offset_text .. ' ' .. epoch .. ' ' .. nonce, 'PX', ARGV[14])
end
redis.call(ARGV[2], ARGV[1], 'p' .. offset_text .. ':' .. epoch .. ':' .. text(top) .. ':' .. body)
return {offset_text, epoch, ''}
