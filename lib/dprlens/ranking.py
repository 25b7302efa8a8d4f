"""PLACEHOLDER"""

@step(version=1, libraries=("faiss-cpu",))
def rankings(dual: DualEncoder, world: World, k: int = 100) -> Ranking:
    """The k best passages (all, if there are fewer) for every question of the world, in their order there."""
    questions, k = [question.text for question in world.questions], min(k, len(world.passages))
    with processes.threads(1):
        if not isinstance(world.passages, Store):
            return Retriever(dual, world.passages).search(questions, k)
        return search(vectors(dual, world).shards, dual.questions(questions).numpy(), k)


@step(version=1, libraries=("faiss-cpu",))
def answered(dual: DualEncoder, world: World, questions: Sequence[natural.OpenQuestion], k: int) -> np.ndarray:
    """Place of the first passage with an answer, by DPR's measure, to questions of no gold passage [question].

    k where none of the first k has one.
    """
    with processes.threads(1):
        queries = dual.questions([question.text for question in questions]).numpy()
        ranking = search(vectors(dual, world).shards, queries, k)
    return answer_places(ranking, [question.answers for question in questions], world.passages)


def checked(chosen: Profile, world: World, dual: DualEncoder) -> dict[str, np.ndarray]:
    """`answered` of this DPR and of the published towers, if the profile asks for the check (`ModelsSpec.check`)."""
    if not chosen.models.check:
        return {}
    published = load_towers(chosen.models.published, Path(chosen.world.folder))
    asked, k = natural.asked_openly(chosen.world), min(100, len(world.passages))
    towers = {"DPR": dual, "published DPR": published}
    return {name: answered(one, world, asked, k) for name, one in towers.items()}


def vectors(dual: DualEncoder, world: World) -> Encoded:
    """The vectors of all passages of a store, in shards below the cache; what is missing of them is made.

    One of the processes that torchrun started makes its own share of them only.
    """
    spec = ShardSpec()
    name = digest(make_plan(spec, dual, world.passages))[:16]
    return encode(Job(default_root() / "vectors" / name, lambda: dual, lambda: world.passages, spec))


def encode_in_group(chosen: Profile, seed: int) -> Encoded:
    """`vectors` of the profile's DPR, which must have been trained, as one of torchrun's processes, or alone."""
    world = world_of(chosen, seed)
    if not isinstance(world.passages, Store):
        raise ValueError(f"the passages of profile {chosen.name!r} are in memory and need no shards; nothing to do")
    return vectors(_trained(chosen, world, seed), world)


def write_trec(chosen: Profile, seed: int, folder: Path) -> None:
    """dpr.run and gold.qrels: how the profile's DPR, which must have been trained, ranks passages for test questions.

    Raises ValueError if it is not trained, and for ids that TREC's formats cannot hold.
    """
    world = world_of(chosen, seed)
    ranking = rankings(_trained(chosen, world, seed), world, min(100, len(world.passages)))
    places = [i for i, question in enumerate(world.questions) if question.split == "test"]
    asked = [world.questions[i] for i in places]
    folder.mkdir(parents=True, exist_ok=True)
    of_test = Ranking(*(field[places] for field in ranking))
    trec.write_run(folder / "dpr.run", of_test, [question.id for question in asked], world.passages, "dprlens")
    trec.write_qrels(folder / "gold.qrels", trec.gold(asked))


def _trained(chosen: Profile, world: World, seed: int) -> DualEncoder:
    """The profile's DPR, from the cache."""
    base = base_of(chosen, world, seed)
    call = DualEncoder(base, base), world, chosen.negatives, chosen.dpr, seed
    if dpr.record(*call) is None:
        raise ValueError(f"the DPR of profile {chosen.name!r} is not trained yet; run `python -m dprlens train` first")
    return dpr(*call).dual



class Judged(NamedTuple):
    """Where a question's passage is found by some vectors for it."""

    place: np.ndarray  # int [.., example]: of the gold passage among all passages, from 0
    among: np.ndarray  # int [.., example]: among the example's candidates, from 0
    margin: np.ndarray  # [.., example]: dot product with the gold passage minus the mean over the other candidates


def _judged(dual: DualEncoder, world: World, drawn: Sample, readings: Iterable[torch.Tensor]) -> Judged:
    """Each reading of the sample's questions [example, d_model], judged by the passages of `dual`."""
    place, found = _placing(dual, world), []
    for asked in readings:
        shown, places = place(asked, drawn.candidates)
        among = (shown > shown[:, :1]).sum(1).numpy()
        found.append((places, among, (shown[:, 0] - shown[:, 1:].mean(1)).numpy()))
    return Judged(*(np.stack(part) for part in zip(*found, strict=True)))


def _placing(dual: DualEncoder, world: World) -> Callable[[torch.Tensor, np.ndarray], tuple[torch.Tensor, np.ndarray]]:
    """A function of question vectors [example, d_model] and places of passages [example, choice].

    It gives these passages' scores [example, choice] and the first one's place among all passages [example].
    """
    if isinstance(world.passages, Store):
        shards = vectors(dual, world).shards

        def among_stored(asked: torch.Tensor, candidates: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
            found = placed(shards, asked.numpy(), candidates)
            return torch.from_numpy(found.scores), found.places

        return among_stored
    places: dict[Text, int] = {}  # each distinct text is scored once, so that equal ones tie to the last digit
    of_text = [places.setdefault(t, len(places)) for t in texts_of(world, "passage", range(len(world.passages)))]
    passages = dual.passages([*places])

    def among_all(asked: torch.Tensor, candidates: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        scores = (asked @ passages.T)[:, of_text]
        shown = scores.gather(1, torch.tensor(candidates))
        return shown, (scores > shown[:, :1]).sum(1).numpy()

    return among_all


