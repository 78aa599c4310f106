-- A table on the disk, filled, indexed, asked; every statement that changes it is a transaction of its own.
create table t(id integer primary key, kind integer, name text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into t select i, i * 7919 % 97, 'name ' || (i * 31 % 1009) from n;
create index by_name on t(name);
select count(*), sum(kind), max(name) from t where name like 'name 9%';
select sum(c) from (select kind, count(*) as c from t group by kind having c > 200);
select count(*) from t a join t b on a.name = b.name where a.id < 500;
update t set kind = kind + 1 where id % 3 = 0;
select sum(kind) from t;
