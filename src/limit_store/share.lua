-- Counts what a gateway used of its share of a limit, and lets it use more. Every number from the gateway is a total since the
-- share was opened, so a call that is repeated, or comes late, does no harm.
--
-- KEYS[1]  the limit's state: `at`, `s` with the shares by id, `n` with the gateways whose counts are in it and when each was last
--          heard, and what the
--          functions of `rate` keep
-- ARGV     1 time in microseconds, or '' for the server's; 2 name of the gateway; 3 id of the share; 4 '1' to open it;
--          5 most requests that it knows it may make; 6 requests that it has made; 7 requests that it gives back;
--          8 how many more it wants; 9 lifetime of a share in microseconds; 10 lifetime of the state in milliseconds;
--          11 most requests that count at once; 12 see `rate`;
--          13 number of pairs (age, requests) of its latest requests, then these; then such pairs of what it counted before
-- A share is { most requests that it may make, requests that it has made, requests that it gave back, when it ends }.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local packed = redis.call('GET', KEYS[1])
local state = packed and cmsgpack.unpack(packed) or { at = now, s = {}, n = {} }
now = math.max(now, state.at) -- a clock that is set back lets nothing through
rate.adapt(state, now)
state.at = now

local function left(share) return math.max(0, share[1] - share[2] - share[3]) end

-- What was leased when a share ended may have been used until then.
for id, share in pairs(state.s) do
  if share[4] < now then
    if left(share) > 0 then rate.count(state, now, share[4], left(share)) end
    state.s[id] = nil
  end
end

local function pair(at) return now - tonumber(ARGV[at]), tonumber(ARGV[at + 1]) end
local first = 14 + 2 * tonumber(ARGV[13])
local id, share = ARGV[3], state.s[ARGV[3]]
if not share then
  if ARGV[4] ~= '1' then return { 0, 0, 0, 0, 0 } end -- it has ended, or the store has lost it
  share = { 0, 0, 0, 0 }
  if not state.n[ARGV[2]] then
    for place = first, #ARGV, 2 do
      local at, n = pair(place)
      rate.count(state, now, at, n)
    end
  end
end

state.n[ARGV[2]] = now
for name, at in pairs(state.n) do
  if at + 1000 * tonumber(ARGV[10]) < now then state.n[name] = nil end -- nothing that it has counted counts any more
end

-- The latest of its requests are those that were not counted yet.
local known, used, returned, want = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local new = used - share[2]
for place = 14, first - 1, 2 do
  local at, n = pair(place)
  n = math.min(n, new)
  if n > 0 then
    rate.count(state, now, at, n)
    new = new - n
  end
end
if new > 0 then rate.count(state, now, now, new) end -- the store knew of them before, and has lost it
share[2], share[3] = math.max(share[2], used), math.max(share[3], returned)
share[1] = math.max(share[1], share[2] + share[3]) -- it may have made more, where it does not wait for the store
share[4] = now + tonumber(ARGV[9])
state.s[id] = share

local leased, shares = 0, 0
for _, other in pairs(state.s) do leased, shares = leased + left(other), shares + 1 end
local free = tonumber(ARGV[11]) - rate.used(state) - leased
want = math.min(want - math.max(0, share[1] - known), free) -- a grant whose answer was lost is still its own
if want >= 1 then
  local grant = math.min(want, math.max(1, math.floor(free / (2 * shares))))
  share[1], free, leased = share[1] + grant, free - grant, leased + grant
end
if tonumber(ARGV[8]) == 0 and left(share) == 0 then state.s[id] = nil end
-- It lasts as long as what another definition has counted.
local lifetime = math.max(tonumber(ARGV[10]), redis.call('PTTL', KEYS[1]))
redis.call('SET', KEYS[1], cmsgpack.pack(state), 'PX', string.format('%.0f', lifetime))
local wait, fresh = 0, 0
local busy = rate.used(state) + leased
if free < 1 then wait = rate.wait(state, now, 1 - free) end
if busy > 0 then fresh = rate.wait(state, now, busy) end
return { share[1], 1, math.max(0, free), math.ceil(wait), math.ceil(fresh) }
