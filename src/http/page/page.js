'use strict';
const $ = id => document.getElementById(id);
// Whatever came from a client is text, and what would turn or hide text is shown as a code.
const safe = text => String(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
  ch => '\\u{' + ch.codePointAt(0).toString(16) + '}');
const make = (tag, text, kind) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};
const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const show = (element, shown) => { if (element.hidden === shown) element.hidden = !shown; };
const given = value => value !== null && value !== undefined;

const bytes = count => {
  if (!given(count)) return '-';
  for (const [unit, size] of [['TB', 1e12], ['GB', 1e9], ['MB', 1e6], ['kB', 1e3]])
    if (count >= size) return +(count / size).toFixed(count / size < 10 ? 2 : 1) + ' ' + unit;
  return count + ' B';
};
const rate = mbit => !given(mbit) ? '-' : mbit >= 1000 ? (mbit / 1000).toFixed(2) + ' Gbit/s' : mbit.toFixed(mbit < 10 ? 2 : 1) + ' Mbit/s';
const seconds = s => !given(s) ? '-' : s < 10 ? s.toFixed(3) + ' s' : s < 120 ? s.toFixed(1) + ' s' : Math.floor(s / 60) + ' min ' + Math.round(s % 60) + ' s';
const left = s => !isFinite(s) ? '' : s < 90 ? Math.ceil(s) + ' s' : Math.ceil(s / 60) + ' min';
const us = n => !given(n) ? '-' : n < 1000 ? n + ' us' : (n / 1000).toFixed(n < 1e5 ? 2 : 0) + ' ms';

const quote = text => /^[\w.\/:@%+-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";
const path = name => encodeURIComponent(name).replace(/[!'()*]/g, c => '%' + c.charCodeAt(0).toString(16).toUpperCase());
// On the server's own machine the page is asked for at an address that clients cannot use.
const address = () => /^(localhost|127\.|\[::1\])/.test(location.hostname) && server.address || location.host;
const commands = (name, group) => {
  const plain = path(name) === name;
  const gate = group === null ? '?gate' : '?gate=' + group;
  const url = `'http://${address()}/files/${path(name)}${gate}'`;
  return ['gatecast fetch ' + address() + (group === null ? '' : ' --group ' + group) + (name[0] === '-' ? ' -- ' : ' ') + quote(name),
    plain ? 'curl -O ' + url : 'curl -o ' + quote((name[0] === '-' ? './' : '') + name) + ' ' + url];
};
const code = text => make('code', text, 'command');

let server = {clients: null};
let files = [];
const panels = new Map();

const token = () => document.querySelector('meta[name=gatecast-token]').content
  || new URLSearchParams(location.hash.slice(1)).get('token')
  || new URLSearchParams(location.search).get('token') || '';
// A server with a key gives its figures to whoever has the token, where the page itself was asked for.
const at = path => { const held = new URLSearchParams(location.search).get('token');
  return held ? path + (path.includes('?') ? '&' : '?') + 'token=' + encodeURIComponent(held) : path; };

function release(session, panel) {
  const word = panel.token.value || token();
  panel.button.disabled = true;
  fetch('/sessions/' + session + '/release', {method: 'POST', headers: {'Gatecast-Token': word}})
    .then(answer => answer.text().then(text => [answer.ok, text]))
    .then(([ok, text]) => set(panel.said, text.trim() || (ok ? 'released' : 'refused')))
    .catch(() => set(panel.said, 'the server did not answer'))
    .finally(() => { panel.asked = true; panel.button.disabled = false; });
}

function makePanel(session) {
  const panel = {root: make('section'), rows: new Map(), samples: new Map(), asked: false};
  panel.title = make('h2');
  panel.title.setAttribute('role', 'status');
  panel.figures = make('p', undefined, 'figures');
  panel.whole = make('div', undefined, 'whole');
  panel.bar = make('progress');
  panel.bar.setAttribute('aria-label', 'All clients');
  panel.whole.append(panel.bar);
  panel.act = make('form', undefined, 'act');
  panel.button = make('button');
  panel.button.type = 'submit';
  panel.token = make('input');
  panel.token.type = 'password';
  panel.token.autocomplete = 'off';
  panel.token.placeholder = 'token that the server printed';
  panel.token.setAttribute('aria-label', 'Token');
  panel.token.hidden = token() !== '';
  panel.said = make('span');
  panel.said.setAttribute('role', 'status');
  panel.act.append(panel.button, panel.token, panel.said);
  panel.act.addEventListener('submit', event => { event.preventDefault(); release(session, panel); });
  panel.how = make('div');
  panel.list = make('ul');
  panel.root.append(panel.title, panel.figures, panel.whole, panel.act, panel.list, panel.how);
  $('open').append(panel.root);
  return panel;
}

function figure(text, label) {
  const span = make('span', label);
  span.prepend(make('b', text));
  return span;
}
function figures(element, list) {
  const key = JSON.stringify(list);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...list.map(([text, label]) => figure(text, label)));
}

function row(panel, seat, build) {
  let entry = panel.rows.get(seat);
  if (!entry) {
    entry = {li: make('li'), name: make('span', undefined, 'name'), small: make('small')};
    build(entry);
    panel.rows.set(seat, entry);
    panel.list.append(entry.li);
  }
  return entry;
}

function musterPanel(panel, s) {
  const ready = s.seats.filter(seat => seat.ready).length;
  const missing = s.clients - s.seats.length;
  set(panel.title, `${ready} of ${s.clients} ready for ${safe(s.file.name)}`);
  document.title = `${ready}/${s.clients} ready - gatecast`;
  figures(panel.figures, [[bytes(s.file.bytes), 'file size'], [s.via, 'way'], [String(missing), 'missing'],
    [given(s.seconds_left) ? left(s.seconds_left) : '-', 'left to wait']]);
  panel.bar.max = s.clients;
  panel.bar.value = ready;
  set(panel.button, ready === s.clients ? 'Releasing' : ready === 0 ? 'Nobody is ready' : `Release the ${ready} that ${ready === 1 ? 'is' : 'are'} ready`);
  panel.button.disabled = ready === 0;
  show(panel.act, true);
  panel.list.className = s.clients > 60 ? 'seats many' : 'seats';
  const taken = new Map(s.seats.map(seat => [seat.seat, seat]));
  for (let number = 1; number <= s.clients; number++) {
    const seat = taken.get(number);
    const entry = row(panel, number, entry => entry.li.append(entry.name, entry.small));
    entry.li.className = !seat ? 'missing' : seat.ready ? 'ready' : '';
    set(entry.name, seat ? `${number} ${safe(seat.name)}` : `${number} missing`);
    set(entry.small, seat ? `${seat.ready ? 'ready' : 'not ready'}, ${seat.kind}, ${safe(seat.client)}` : '\u00a0');
    if (seat) { entry.name.title = safe(seat.name); entry.small.title = entry.small.textContent; }
  }
  if (!panel.how.firstChild) {
    panel.how.append(make('h3', 'On a client that is missing, type one of these'));
    for (const text of commands(s.file.name, given(server.clients) ? null : s.clients)) panel.how.append(code(text));
  }
  show(panel.how, missing > 0);
}

const shades = () => {
  const style = getComputedStyle(document.documentElement);
  return [style.getPropertyValue('--empty'), style.getPropertyValue('--live'), style.getPropertyValue('--good')];
};
// The pieces of the file in a row: what has arrived of each; for UDP the holes are where it is pale.
function drawMap(canvas, map) {
  if (canvas.width !== map.length) { canvas.width = map.length; canvas.height = 1; }
  const [empty, live, good] = shades();
  const pen = canvas.getContext('2d');
  map.forEach((percent, at) => {
    pen.fillStyle = empty;
    pen.fillRect(at, 0, 1, 1);
    pen.globalAlpha = percent / 100;
    pen.fillStyle = percent === 100 ? good : live;
    pen.fillRect(at, 0, 1, 1);
    pen.globalAlpha = 1;
  });
}

function movingPanel(panel, s) {
  if (panel.phase !== 'moving') { panel.list.replaceChildren(); panel.rows.clear(); }
  const total = s.file.bytes;
  let moved = 0, finished = 0, sum = 0;
  panel.list.className = s.seats.length > 60 ? 'bars many' : 'bars';
  for (const seat of s.seats) {
    const entry = row(panel, seat.seat, entry => {
      entry.right = make('span');
      entry.top = make('span', undefined, 'top');
      entry.top.append(entry.name, entry.right);
      entry.bar = make('progress');
      entry.bar.max = Math.max(total, 1);
      entry.li.append(entry.top, entry.bar, entry.small);
    });
    const samples = panel.samples.get(seat.seat) || [];
    panel.samples.set(seat.seat, samples);
    const last = samples[samples.length - 1];
    if (!last || s.seconds_moving > last[0]) samples.push([s.seconds_moving, seat.bytes]);
    if (samples.length > 4) samples.shift();
    const [t0, b0] = samples.length > 1 ? samples[0] : [0, 0];
    const speed = s.seconds_moving > t0 ? (seat.bytes - b0) / (s.seconds_moving - t0) : 0;
    const share = total ? seat.bytes / total : 1;
    moved += seat.bytes;
    if (seat.finished) finished++; else sum += speed;
    set(entry.name, `${seat.seat} ${safe(seat.name)}`);
    entry.name.title = safe(seat.name);
    entry.bar.value = seat.bytes;
    entry.bar.setAttribute('aria-label', `Seat ${seat.seat}`);
    set(entry.right, seat.finished ? 'ended' : Math.floor(share * 100) + ' %');
    entry.li.className = seat.finished ? 'done' : '';
    // Nobody's first tenths of a second say how long the rest takes.
    const rest = seat.finished || s.seconds_moving < 0.5 ? '' : left((total - seat.bytes) / speed);
    set(entry.small, seat.finished ? bytes(seat.bytes) : [rate(speed * 8 / 1e6), rest && rest + ' left',
      given(seat.lost) ? seat.lost + ' lost' : ''].filter(Boolean).join(', '));
    if (seat.map && seat.map.length) {
      if (!entry.map) {
        entry.map = make('canvas');
        entry.map.setAttribute('role', 'img');
        entry.li.append(entry.map);
      }
      entry.map.setAttribute('aria-label', `Seat ${seat.seat}: ${seat.map.filter(p => p === 100).length} of ${seat.map.length} pieces whole`);
      drawMap(entry.map, seat.map);
    }
  }
  set(panel.title, `Sending ${safe(s.file.name)} to ${s.seats.length}`);
  const all = total * s.seats.length;
  document.title = `${all ? Math.floor(moved / all * 100) : 100} % - gatecast`;
  figures(panel.figures, [[`${finished} of ${s.seats.length}`, 'ended'], [seconds(s.seconds_moving), 'since the release'],
    [rate(sum * 8 / 1e6), 'all together'], [s.via, 'way']]);
  panel.bar.max = Math.max(all, 1);
  panel.bar.value = moved;
  show(panel.act, false);
  show(panel.how, false);
}

function offer() {
  const group = given(server.clients) ? null : 25;
  const key = JSON.stringify([files, group, server.address]);
  if ($('offers').dataset.key === key) return;
  $('offers').dataset.key = key;
  $('offers').replaceChildren(...files.slice(0, 50).map(file => {
    const div = make('div');
    div.append(make('h3', `${safe(file.name)}, ${bytes(file.bytes)}`), ...commands(file.name, group).map(code));
    return div;
  }));
  if (files.length > 50) {
    const more = make('a', `and ${files.length - 50} more`);
    more.href = '/files';
    $('offers').append(more);
  }
}

function state(s) {
  server = s.server;
  const open = s.sessions.filter(session => session.phase !== 'ending');
  for (const [id, panel] of panels)
    if (!open.some(session => session.session === id)) { panel.root.remove(); panels.delete(id); }
  for (const session of open) {
    let panel = panels.get(session.session);
    if (!panel) { panel = makePanel(session.session); panels.set(session.session, panel); }
    (session.phase === 'muster' ? musterPanel : movingPanel)(panel, session);
    panel.phase = session.phase;
  }
  show($('idle'), open.length === 0);
  if (open.length === 0) { document.title = 'gatecast'; offer(); }
}

const COLUMNS = [['seat', r => r.seat], ['client', r => safe(r.name)], ['verified', r => r.verified],
  ['outcome', r => r.outcome], ['bytes client', r => r.bytes_client], ['bytes server', r => r.bytes_server],
  ['time client', r => r.seconds_client], ['time server', r => r.seconds_server],
  ['Mbit/s client', r => r.rate_client_mbit], ['Mbit/s server', r => r.rate_server_mbit],
  ['address', r => r.client], ['client port', r => port(r.client)], ['server port', r => port(r.server)]];
const port = address => given(address) ? address.slice(address.lastIndexOf(':') + 1) : null;
const host = address => given(address) ? address.slice(0, address.lastIndexOf(':')) : null;

function cell(name, value, result) {
  const td = make('td');
  if (name === 'verified') {
    td.textContent = value === true ? 'yes' : value === false ? 'NO' : '-';
    td.className = value === true ? 'good' : value === false ? 'bad' : '';
  } else if (name === 'outcome') {
    td.textContent = value + (result.reason ? ': ' + safe(result.reason) : '');
    td.className = value === 'complete' ? '' : 'bad';
    td.title = td.textContent;
  } else if (!given(value)) td.textContent = '-';
  else if (name === 'address') td.textContent = host(value);
  else if (name.startsWith('time')) td.textContent = value.toFixed(value < 0.1 ? 6 : 3) + ' s';
  else if (name.startsWith('Mbit')) td.textContent = value.toFixed(1);
  else if (name.startsWith('bytes')) td.textContent = value.toLocaleString('en-US');
  else { td.textContent = value; td.title = value; }
  return td;
}

let plotted = false;
function ended(event) {
  const d = event.document;
  const proven = d.results.filter(r => r.outcome === 'complete' && r.verified === true).length;
  set($('after-title'), `${proven} of ${d.clients} copies of ${safe(d.file.name)} are proven`);
  figures($('after-global'), [[rate(d.global.rate_mbit), 'global rate'], [seconds(d.global.seconds), 'release to last byte'],
    [us(d.release.skew_us), 'release skew'], [us(d.release.skew_client_us), 'skew at the clients'], [bytes(d.file.bytes), 'file size'], [d.via, 'way']]);
  const invalid = d.identities !== 'hold';
  set($('after-notes'), invalid ? 'INVALID: ' + d.identities.map(safe).join('; ') : '');
  $('after-notes').className = invalid ? 'bad' : '';
  const head = make('thead'), body = make('tbody'), line = make('tr');
  for (const [name] of COLUMNS) {
    const th = make('th', name);
    th.scope = 'col';
    line.append(th);
  }
  head.append(line);
  for (const result of d.results) {
    const tr = make('tr');
    tr.append(...COLUMNS.map(([name, read]) => cell(name, read(result), result)));
    body.append(tr);
  }
  $('after-table').replaceChildren(head, body);
  const link = (text, href) => { const a = make('a', text); a.href = at(href); return a; };
  $('after-links').replaceChildren(link('CSV', `/sessions/${d.session}.csv`), link('JSON', '/sessions/' + d.session),
    link('all sessions as CSV', '/sessions.csv'));
  $('plot').firstChild.src = at('/plot.svg?' + d.session);
  // The plot leaves out sessions that failed; without any other it is empty.
  plotted = plotted || d.results.filter(r => r.outcome === 'complete').length >= d.clients;
  show($('plot'), plotted);
  show($('after'), true);
}

function link(text, kind) { set($('link'), text); $('link').className = kind; }
set($('where'), location.host);
const source = new EventSource(at('/events'));
source.addEventListener('open', () => link('live', 'live'));
source.addEventListener('error', () => link('the server does not answer', 'lost'));
source.addEventListener('state', event => state(JSON.parse(event.data)));
source.addEventListener('session', event => ended(JSON.parse(event.data)));
fetch('/files', {headers: {Accept: 'application/json'}}).then(answer => answer.json())
  .then(list => { files = list.files; if (!$('idle').hidden) offer(); }).catch(() => {});
