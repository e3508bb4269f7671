-- gatecast's protocol for Wireshark and tshark: lines on TCP, and the datagrams of udp, raw and multicast.
--
--     tshark -o tcp.try_heuristic_first:TRUE -X lua_script:gatecast.lua -r h1.pcapng -Y gatecast
--
-- The format is in README.md and udp/packet.rs beside this file. A field of a line is gatecast.NAME, its value
-- decoded (RFC 3986); numbers are those of `numbers`.

local gatecast = Proto("gatecast", "gatecast")
local numbers = [[again at_us buffer busy_us bytes clients corrupt cpu_us cpu_wait_us cum datagram
delay_max_us delay_us delivered delivery_rate duplicate durable_us first_us foreign from_peers from_server
hash_us hashed_us heard host_rx_drop jitter_p50_us jitter_p95_us jitter_p99_us jitter_us last_us late local_drop
loss_burst lost min_rtt_us more network_lost offered offset paced_us queued_bytes read_us ready received
reorder_extent reordered retransmitted round rtt_us rwnd_limited_us seat seen segments segments_again sndbuf_limited_us
sync_us tcp udp unheard unique woke_us write_us bytes_from_server bytes_from_peers clock run
buffer_bytes buffer_full_us client_link_us datagrams rate_cuts repair_us server_link_us span_us step tail tail_us]]
local texts = [[at auto code from file group hmac missing name outcome port random reason sender session sha1 tree via ways]]
local field, is_number = {}, {}
for name in numbers:gmatch("%S+") do
    field[name], is_number[name] = ProtoField.uint64("gatecast." .. name, name), true
end
for name in texts:gmatch("%S+") do
    field[name] = ProtoField.string("gatecast." .. name, name)
end
field[".word"] = ProtoField.string("gatecast.word", "message")
field[".other"] = ProtoField.string("gatecast.other", "field of another version")
field[".manifest"] = ProtoField.string("gatecast.manifest", "line of a manifest")
field[".payload"] = ProtoField.uint32("gatecast.payload", "bytes of payload")

local udp = Proto("gatecast_udp", "gatecast datagram")
local kinds = { "DATA", "XOR", "END" }
local of = {
    kind = ProtoField.uint8("gatecast_udp.kind", "kind", base.DEC, kinds),
    stream = ProtoField.uint32("gatecast_udp.stream", "stream", base.HEX),
    number = ProtoField.uint32("gatecast_udp.number", "number"),
    sent_us = ProtoField.uint32("gatecast_udp.sent_us", "sender's clock, microseconds"),
    block = ProtoField.uint32("gatecast_udp.block", "block"),
    again = ProtoField.bool("gatecast_udp.again", "sent before"),
    count = ProtoField.uint8("gatecast_udp.count", "blocks combined"),
    length = ProtoField.uint16("gatecast_udp.length", "bytes of payload"),
    upto = ProtoField.uint32("gatecast_udp.upto", "blocks sent so far"),
    round = ProtoField.uint32("gatecast_udp.round", "round"),
}
local damaged = ProtoExpert.new("gatecast_udp.damaged", "not whole or not possible", expert.group.MALFORMED,
    expert.severity.ERROR)

local all = {}
for _, one in pairs(field) do all[#all + 1] = one end
gatecast.fields = all
all = {}
for _, one in pairs(of) do all[#all + 1] = one end
udp.fields = all
udp.experts = { damaged }

local stream_of = Field.new("tcp.stream")
-- What a connection has said so far, and what was found in each frame: a frame is shown many times.
local conversations, seen = {}, {}
function gatecast.init()
    conversations, seen = {}, {}
end

local function decoded(text)
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Reads a line: its word, and its fields in their order.
local function parsed(line)
    local parts = {}
    for part in line:gmatch("%S+") do parts[#parts + 1] = part end
    local first = 1
    if parts[1] and parts[1]:match("^GATECAST/%d+$") then first = 2 end
    local found = {}
    for place = first + 1, #parts do
        local name, value = parts[place]:match("^([^=]+)=(.*)$")
        if name then found[#found + 1] = { name, decoded(value) } end
    end
    return parts[first] or "", found
end

-- A decimal number below 2^64; Lua's own are exact to 2^53 only.
local function number(text)
    if not text:match("^%d+$") or #text > 20 then return nil end
    local value = UInt64(0)
    for digit in text:gmatch("%d") do value = value * UInt64(10) + UInt64(tonumber(digit)) end
    return value
end

local function show_line(text, tree, range)
    local word, found = parsed(text)
    local part = tree:add(gatecast, range, "gatecast " .. word)
    part:add(field[".word"], range, word)
    for _, pair in ipairs(found) do
        local name, value = pair[1], pair[2]
        local shown = is_number[name] and number(value) or not is_number[name] and value or nil
        if field[name] and shown then
            part:add(field[name], range, shown)
        else
            part:add(field[".other"], range, name .. "=" .. value)
        end
    end
    return word
end

-- Notes what a line means for the bytes that follow it.
local function note(side, conversation, text)
    local word, found = parsed(text)
    local value = {}
    for _, pair in ipairs(found) do value[pair[1]] = pair[2] end
    if word == "OFFER" then
        conversation.via = value.via
        side.manifest = tonumber(value.tree) or 0
    elseif word == "GO" and conversation.via == "tcp" then
        side.payload = tonumber(value.bytes) or 0
    end
end

-- What is in a part of a connection: {kind, offset, length}.
local function items(buffer, conversation, side)
    local found, at, length = {}, 0, buffer:len()
    while at < length do
        if side.payload > 0 then
            local count = math.min(side.payload, length - at)
            found[#found + 1] = { ".payload", at, count }
            side.payload, at = side.payload - count, at + count
        else
            local text = buffer:raw(at, length - at)
            local stop = text:find("\n", 1, true)
            if not stop then
                if #text > 2048 then break end
                found.lacks = at
                break
            end
            local kind = ".word"
            if side.manifest > 0 then
                kind, side.manifest = ".manifest", side.manifest - 1
            else
                note(side, conversation, text:sub(1, stop - 1))
            end
            found[#found + 1] = { kind, at, stop }
            at = at + stop
        end
    end
    return found
end

function gatecast.dissector(buffer, pinfo, tree)
    local stream = stream_of().value
    local conversation = conversations[stream]
    if not conversation then
        conversation = { sides = {} }
        conversations[stream] = conversation
    end
    local who = tostring(pinfo.src) .. ":" .. pinfo.src_port
    local side = conversation.sides[who] or { payload = 0, manifest = 0 }
    conversation.sides[who] = side
    local key = pinfo.number .. ":" .. buffer:len() .. ":" .. buffer:offset()
    local found = seen[key]
    if not found then
        found = items(buffer, conversation, side)
        seen[key] = found
    end
    pinfo.cols.protocol = "gatecast"
    local words = {}
    for _, item in ipairs(found) do
        local kind, range = item[1], buffer(item[2], item[3])
        if kind == ".payload" then
            tree:add(gatecast, range, "gatecast payload"):add(field[kind], range, item[3])
            words[#words + 1] = "payload"
        else
            local text = buffer:raw(item[2], item[3] - 1)
            if kind == ".manifest" then
                tree:add(gatecast, range, "gatecast manifest"):add(field[kind], range, text)
                words[#words + 1] = "manifest"
            else
                words[#words + 1] = show_line(text, tree, range)
            end
        end
    end
    if #words > 0 then pinfo.cols.info = table.concat(words, ", ") end
    if found.lacks then
        pinfo.desegment_offset = found.lacks
        pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
    end
    return buffer:len()
end

-- A connection of ours begins with our name and version.
gatecast:register_heuristic("tcp", function(buffer, pinfo, tree)
    if buffer:len() < 11 or not buffer:raw(0, 11):match("^GATECAST/%d ") then return false end
    pinfo.conversation = gatecast
    gatecast.dissector(buffer, pinfo, tree)
    return true
end)

-- Reads an LEB128 number: its value and the offset behind it.
local function leb(buffer, at)
    local value, scale = 0, 1
    for _ = 1, 5 do
        if at >= buffer:len() then return nil end
        local byte = buffer(at, 1):uint()
        value, scale, at = value + (byte % 128) * scale, scale * 128, at + 1
        if byte < 128 then return value, at end
    end
    return nil
end

-- The body of a datagram; false where it is not whole or not possible.
local function body(buffer, kind, part)
    local size = buffer:len()
    if size < 24 then return false end
    if kind == 3 then
        part:add(of.upto, buffer(16, 4))
        part:add(of.round, buffer(20, 4))
        return size == 24
    elseif kind == 1 then
        part:add(of.block, buffer(16, 4))
        part:add(of.again, buffer(20, 2), buffer(20, 2):uint() % 2 == 1)
        part:add(of.length, buffer(22, 2))
        return buffer(20, 2):uint() <= 1 and size == 24 + buffer(22, 2):uint()
    end
    local count, block, at = buffer(16, 1):uint(), buffer(20, 4):uint(), 24
    part:add(of.count, buffer(16, 1))
    part:add(of.length, buffer(18, 2))
    part:add(of.block, buffer(20, 4))
    if count < 2 or count > 20 or buffer(17, 1):uint() ~= 0 then return false end
    for _ = 2, count do
        local gap, after = leb(buffer, at)
        if not gap or block + gap + 1 > 0xffffffff then return false end
        block = block + gap + 1
        part:add(of.block, buffer(at, after - at), block)
        at = after
    end
    return size == at + buffer(18, 2):uint()
end

function udp.dissector(buffer, pinfo, tree)
    pinfo.cols.protocol = "gatecast"
    local part = tree:add(udp, buffer())
    if buffer:len() < 16 then
        part:add_proto_expert_info(damaged)
        return buffer:len()
    end
    local kind = buffer(3, 1):uint()
    part:add(of.kind, buffer(3, 1))
    part:add(of.stream, buffer(4, 4))
    part:add(of.number, buffer(8, 4))
    part:add(of.sent_us, buffer(12, 4))
    pinfo.cols.info = (kinds[kind] or "unknown") .. " " .. buffer(8, 4):uint()
    if not kinds[kind] or not body(buffer, kind, part) then part:add_proto_expert_info(damaged) end
    return buffer:len()
end

udp:register_heuristic("udp", function(buffer, pinfo, tree)
    if buffer:len() < 4 or buffer(0, 3):uint() ~= 0x0c4701 then return false end
    udp.dissector(buffer, pinfo, tree)
    return true
end)
